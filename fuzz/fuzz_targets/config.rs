#![no_main]
use checkpost_core::config::{Document, Lists, Origins, Problems};
use checkpost_core::policy::{Names, Policy};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let mut problems = Problems::default();
    let mut document = Document::parse("fuzz.toml", text, &mut problems);
    let _ = Origins::take(&mut document, &mut problems);
    let lists = Lists::take(&mut document, &mut problems);
    let names = Names { filters: &[], ways: &[], lists: &lists };
    let policy = Policy::load(&mut document, &names, &mut problems);
    document.finish(&mut problems);
    let _ = (problems.to_string(), policy.risks(&[]), document.render(true));
});
