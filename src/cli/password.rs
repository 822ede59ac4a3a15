//! A password on standard input, so that it is in no process list.

use std::io::Read;

use secrecy::SecretString;

use crate::exit::{Exit, Failure};

/// Longest password read from standard input, bytes.
const PASSWORD_MAX: u64 = 4096;

/// The first line of standard input.
///
/// # Errors
///
/// There is none.
pub(super) fn from_stdin() -> Result<SecretString, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .take(PASSWORD_MAX)
        .read_to_string(&mut text)
        .map_err(|e| Failure::message(Exit::Usage, format!("cannot read the password from standard input: {e}")))?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        let message = "standard input holds no password; expected it as the first line (--password-stdin)";
        return Err(Failure::message(Exit::Usage, message));
    }
    Ok(SecretString::from(line))
}
