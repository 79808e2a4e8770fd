//! The header and its mirror in Rust are the same, to the octet: a C program prints what the compiler makes of
//! the one, and this compares it with the other.

#![allow(clippy::unwrap_used, reason = "a test may end by a panic")]

use std::collections::BTreeMap;
use std::mem::offset_of;
use std::process::Command;

use checkpost_filter_abi::raw;

/// Name in C → (the C expression, its value in Rust).
struct Table(BTreeMap<&'static str, i128>);

macro_rules! layout {
    ($table:ident, $c:literal, $rust:ty, [$($member:ident = $name:literal),* $(,)?]) => {
        $table.0.insert(concat!("sizeof(", $c, ")"), size_of::<$rust>() as i128);
        $($table.0.insert(concat!("offsetof(", $c, ", ", $name, ")"), offset_of!($rust, $member) as i128);)*
    };
}

macro_rules! constants {
    ($table:ident, $($name:ident),* $(,)?) => {
        $($table.0.insert(concat!("CHECKPOST_", stringify!($name)), i128::from(raw::$name));)*
    };
}

macro_rules! bounds {
    ($table:ident, $($name:ident),* $(,)?) => {
        $($table.0.insert(concat!("CHECKPOST_", stringify!($name)), raw::$name as i128);)*
    };
}

fn table() -> Table {
    let mut table = Table(BTreeMap::new());
    layout!(table, "checkpost_str", raw::Str, [data = "data", length = "length"]);
    layout!(
        table,
        "checkpost_finding",
        raw::Finding,
        [
            size = "size",
            kind = "kind",
            score = "score",
            name = "name",
            class = "class_",
            part = "part",
            detail = "detail",
        ]
    );
    layout!(table, "checkpost_host", raw::Host, [size = "size", context = "context", log = "log", explain = "explain"]);
    layout!(table, "checkpost_setting", raw::Setting, [key = "key", value = "value"]);
    layout!(
        table,
        "checkpost_mail",
        raw::Mail,
        [
            size = "size",
            context = "context",
            host = "host",
            id = "id",
            sender = "sender",
            recipients = "recipients",
            recipient_count = "recipient_count",
            way = "way",
            origin = "origin",
            client = "client",
            client_name = "client_name",
            helo = "helo",
            user = "user",
            queue_id = "queue_id",
            tls = "tls",
            reserved = "reserved",
            length = "length",
            content = "content",
            read_at = "read_at",
            left_ms = "left_ms",
            cancelled = "cancelled",
            report = "report",
        ]
    );
    layout!(
        table,
        "checkpost_filter_descriptor",
        raw::Descriptor,
        [
            magic = "magic",
            abi = "abi",
            size = "size",
            name = "name",
            version = "version",
            finds = "finds",
            reserved = "reserved",
            create = "create",
            check = "check",
            destroy = "destroy",
        ]
    );
    constants!(
        table, MALWARE, PHISHING, SPAM, POLICY, ENCRYPTED, LIMIT, AUTH, OK, ERROR, TOO_LARGE, UNREADABLE, TIMEOUT,
        BUSY, READ_ERROR, PANICKED, TAKEN, REFUSED, STOP, LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG,
    );
    bounds!(table, MAX_NAME, MAX_CLASS, MAX_PART, MAX_DETAIL, MAX_FINDINGS, MAX_LOG_LINES);
    table.0.insert("CHECKPOST_FILTER_MAGIC", i128::from(raw::MAGIC));
    table.0.insert("CHECKPOST_FILTER_ABI", i128::from(raw::ABI));
    table
}

#[test]
fn the_header_and_its_mirror_agree() {
    if !checkpost_filter_fixtures::has_compiler() {
        return;
    }
    let table = table();
    let folder = checkpost_filter_fixtures::Libraries::new();
    let (source, program) = (folder.folder().join("layout.c"), folder.folder().join("layout"));
    let lines: String =
        table.0.keys().map(|name| format!("    printf(\"%llu\\n\", (unsigned long long)({name}));\n")).collect();
    let text =
        format!("#include <stdio.h>\n#include \"checkpost_filter.h\"\nint main(void) {{\n{lines}    return 0;\n}}\n");
    std::fs::write(&source, text).unwrap();
    let include = checkpost_filter_fixtures::repository().join("filter-abi/include");
    let compiled = Command::new("cc")
        .args(["-std=c11", "-Wall", "-Wextra", "-pedantic", "-Werror", "-I"])
        .args([include.as_os_str(), "-o".as_ref(), program.as_os_str(), source.as_os_str()])
        .output()
        .unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let printed = Command::new(&program).output().unwrap();
    let printed = String::from_utf8(printed.stdout).unwrap();
    assert_eq!(printed.lines().count(), table.0.len());
    for ((name, rust), c) in table.0.iter().zip(printed.lines()) {
        assert_eq!(c.parse::<i128>().unwrap(), *rust, "{name}: {c} in C, {rust} in Rust");
    }
}

/// A member or constant that is added to the header must be added to the table above.
#[test]
fn nothing_of_the_header_is_left_out() {
    let header = include_str!("../include/checkpost_filter.h");
    let table = table();
    let constants = header.lines().filter_map(|line| line.strip_prefix("#define CHECKPOST_"));
    for name in constants.filter_map(|rest| rest.split_once(' ')).map(|(name, _)| name) {
        let is_macro = name.contains('(') || ["EXPORT"].contains(&name);
        assert!(is_macro || table.0.contains_key(&*format!("CHECKPOST_{name}")), "CHECKPOST_{name} is not compared");
    }
    // Every pointer-sized member of a structure is an offset in the table: the sizes leave no room for one more.
    assert_eq!(size_of::<raw::Mail>(), 8 * 2 + 8 + 16 * 2 + 16 + 16 * 7 + 8 + 8 + 8 + 8 * 4);
    assert_eq!(size_of::<raw::Descriptor>(), 80);
}
