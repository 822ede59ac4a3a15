//! Fuzz target: a valid ring whose header, hot line and slot headers are changed under its readers.
#![no_main]

use std::sync::LazyLock;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static BENCH: LazyLock<camring_fuzz::ReadBench> = LazyLock::new(camring_fuzz::ReadBench::new);
    BENCH.run(bytes);
});
