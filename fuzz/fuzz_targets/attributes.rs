#![no_main]
use checkpost_wire::smtp::attributes::MAX_COMMAND;
use checkpost_wire::smtp::{Attribute, Attributes, xtext};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    assert_eq!(xtext::decode(xtext::encode(input).as_bytes()).as_deref(), Some(input));
    let _ = xtext::decode(input);
    let Some(attributes) = Attributes::parse(input) else { return };
    let _ = (attributes.address(), attributes.port());
    let mut read = Attributes::new();
    for command in attributes.commands("XFORWARD", Attribute::ALL.into_iter().collect()) {
        assert!(command.len() <= MAX_COMMAND);
        let rest = command.strip_prefix("XFORWARD ").and_then(|rest| rest.strip_suffix("\r\n")).expect("whole command");
        read.merge(&Attributes::parse(rest.as_bytes()).expect("what we write we can read"));
    }
    for (attribute, value) in attributes.iter() {
        // A value too long for one command is cut.
        let (value, read) = (value.unwrap_or_default(), read.value(attribute).unwrap_or_default());
        assert!(value.starts_with(read) && (value.len() * 3 > 400 || value == read));
    }
});
