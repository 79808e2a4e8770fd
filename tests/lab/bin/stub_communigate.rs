//! A stand-in for CommuniGate Pro's server; see `lab/communigate/stand_in.rs`.

fn main() -> std::io::Result<()> {
    checkpost_tests::communigate::serve()
}
