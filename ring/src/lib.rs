//! The shared-memory ring of camring: one writer, many read-only readers, always the newest frame.

pub mod frame;
