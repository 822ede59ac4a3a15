//! Fuzz target: any bytes as the file behind a ring's name.
#![no_main]

use std::sync::LazyLock;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    static BENCH: LazyLock<camring_fuzz::AttachBench> = LazyLock::new(camring_fuzz::AttachBench::new);
    BENCH.run(bytes);
});
