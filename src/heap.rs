//! The heap of a process that lives for months: that there is one only, and how it is set.

use std::os::unix::process::CommandExt;
use std::process::Command;

use camring_ring::process::settle_heap;
use gst::glib;

use crate::exit::{Exit, Failure};

/// The variable that GLib reads before `main`, and what has it take small blocks from the C library.
const GLIB: (&str, &str) = ("G_SLICE", "always-malloc");
/// The first version of GLib that does so anyway.
const ALWAYS: (u32, u32) = (2, 76);

/// Sets the heap up; to be called first, before there is another thread.
///
/// GLib before 2.76 has a store of its own for small blocks. It gives a page back only when every block in it is free,
/// and blocks of sessions lie mixed: 1.7 to 2.0 kB more for each session, where the heap of the C library takes 0.3 to
/// 0.8. Asked for behind the start it refuses, so the process begins anew with the variable set, under the same
/// number. Whoever sets the variable decides.
///
/// # Errors
///
/// The program is there and cannot be begun anew.
pub fn settle() -> Result<(), Failure> {
    let (name, value) = GLIB;
    if std::env::var_os(name).is_none() && glib::check_version(ALWAYS.0, ALWAYS.1, 0).is_some() {
        begin_anew(name, value)?;
    }
    settle_heap();
    Ok(())
}

/// Returns when this program is no longer where it was started from, as in the middle of an upgrade.
fn begin_anew(name: &str, value: &str) -> Result<(), Failure> {
    let Some(program) = std::env::current_exe().ok().filter(|program| program.exists()) else { return Ok(()) };
    let mut arguments = std::env::args_os();
    let mut command = Command::new(&program);
    if let Some(called) = arguments.next() {
        command.arg0(called);
    }
    let error = command.args(arguments).env(name, value).exec();
    let shown = program.display();
    Err(Failure::message(
        Exit::Failure,
        format!("cannot begin {shown} anew: {error}; set {name}={value} before it starts"),
    ))
}
