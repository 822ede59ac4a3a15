//! Fuzz target: the decoders of plain bytes and words: configuration block and names.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| camring_fuzz::text(bytes));
