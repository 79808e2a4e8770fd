//! How fast content is decoded and stuffed on one core: `cargo run --release -p checkpost-wire --example throughput`.
//! Not a test: it asserts nothing about time, since machines differ.
#![allow(clippy::print_stdout, reason = "its table is the point")]

use std::hint::black_box;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use checkpost_wire::smtp::{BareNewline, BdatDecoder, DataDecoder, Stuffer};

/// What one read of the driver brings.
const PIECE: usize = 64 * 1024;

fn main() {
    println!(
        "{:<26} {:>12} {:>12} {:>12} {:>12}",
        "content (1 MiB)", "DATA, copy", "DATA, slices", "BDAT, slices", "stuffing"
    );
    for (name, line) in [
        ("78-octet lines", "x".repeat(76) + "\r\n"),
        ("20-octet lines", "x".repeat(18) + "\r\n"),
        ("empty lines", "\r\n".to_owned()),
        ("998-octet lines", "x".repeat(996) + "\r\n"),
        ("78 octets, all with a dot", ".".to_owned() + &"x".repeat(75) + "\r\n"),
    ] {
        let content = line.repeat((1 << 20) / line.len());
        let content = content.as_bytes();
        let mut stuffer = Stuffer::new();
        let mut wire: Vec<u8> = stuffer.stuff(content).flatten().copied().collect();
        wire.extend_from_slice(stuffer.finish());

        let mut out = BytesMut::with_capacity(2 << 20);
        let copy = rate(wire.len(), || {
            out.clear();
            let mut decoder = DataDecoder::new(BareNewline::Reject, 0);
            for piece in wire.chunks(PIECE) {
                decoder.decode_into(piece, &mut |run| out.extend_from_slice(run));
            }
            assert!(decoder.ended() && out.len() == content.len());
        });
        let slices = rate(wire.len(), || {
            let mut decoder = DataDecoder::new(BareNewline::Reject, 0);
            for piece in wire.chunks(PIECE) {
                decoder.decode_into(piece, &mut |run| {
                    black_box(run);
                });
            }
            assert!(decoder.ended());
        });
        let bdat = rate(content.len(), || {
            let mut decoder = BdatDecoder::new(BareNewline::Reject, 0);
            assert!(decoder.begin(content.len() as u64, true).is_ok());
            for piece in content.chunks(PIECE) {
                decoder.decode_into(piece, &mut |run| {
                    black_box(run);
                });
            }
            assert!(decoder.ended());
        });
        let stuffing = rate(content.len(), || {
            let mut stuffer = Stuffer::new();
            for chunk in content.chunks(PIECE) {
                black_box(stuffer.stuff(chunk).map(<[u8]>::len).sum::<usize>());
            }
        });
        println!("{name:<26} {copy:>7.2} GB/s {slices:>7.2} GB/s {bdat:>7.2} GB/s {stuffing:>7.2} GB/s");
    }
}

/// GB per second over at least half a second; the best of ten parts, since others use the machine too.
fn rate(octets: usize, mut work: impl FnMut()) -> f64 {
    let mut best = 0.0_f64;
    for _ in 0..10 {
        let (start, mut rounds) = (Instant::now(), 0_u32);
        while start.elapsed() < Duration::from_millis(50) {
            work();
            rounds += 1;
        }
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let rate = octets as f64 * f64::from(rounds) / start.elapsed().as_secs_f64() / 1e9;
        best = best.max(rate);
    }
    best
}
