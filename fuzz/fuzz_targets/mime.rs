#![no_main]
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use bytes::Bytes;
use checkpost_core::content::Content;
use checkpost_core::content::mime::budget::Budget;
use checkpost_core::content::mime::{Item, Problem, Visitor, walk};
use checkpost_core::filter::Unpacking;
use libfuzzer_sys::fuzz_target;

/// Counts what it is shown, to hold it against the bounds.
#[derive(Default)]
struct Count {
    items: u64,
    octets: u64,
}

impl Visitor for Count {
    fn item(&mut self, _item: &Item<'_>) {
        self.items += 1;
    }
    fn data(&mut self, _item: &Item<'_>, data: &[u8], _offset: u64) {
        self.octets += data.len() as u64;
    }
    fn raw(&mut self, _path: &str, data: &[u8]) {
        self.octets += data.len() as u64;
    }
    fn macros(&mut self, _item: &Item<'_>) {}
    fn problem(&mut self, _path: &str, _problem: Problem) {}
}

fuzz_target!(|data: &[u8]| {
    let limits = Unpacking { octets: 1 << 20, items: 200, depth: 8, ratio: 250 };
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut budget = Budget::new(limits, deadline, Arc::new(AtomicBool::new(false)));
    let mut count = Count::default();
    let walked = walk(&Content::from(Bytes::copy_from_slice(data)), &mut budget, &mut count);
    assert!(walked.is_ok(), "{walked:?}");
    assert!(count.items <= u64::from(limits.items));
    // Every octet of the mail is shown at least once, whatever it is made of.
    assert!(count.octets >= data.len() as u64, "{} of {}", count.octets, data.len());
});
