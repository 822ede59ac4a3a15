//! TLS to a camera: which certificates are accepted, and why one was not.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use camring_ring::frame::Reason;
use gio::TlsCertificateFlags;
use gio::prelude::*;
use gst::glib;

use crate::source::{RetryClass, RetryReason};

/// What a camera's certificate must look like.
#[derive(Clone, Debug)]
pub struct TlsOptions {
    /// Check the certificate. Off only together with `allow_insecure`.
    pub verify: bool,
    /// Certificates to trust instead of the system's, as PEM.
    pub ca: Option<PathBuf>,
    /// SHA-256 of the one certificate to accept (hex, colons allowed); then nothing else about it is checked.
    pub pin_sha256: Option<String>,
    /// Says that no check is meant.
    pub allow_insecure: bool,
}

impl Default for TlsOptions {
    fn default() -> Self {
        Self { verify: true, ca: None, pin_sha256: None, allow_insecure: false }
    }
}

/// Why the last certificate was refused, in words.
pub(super) type Refusal = Arc<Mutex<Option<String>>>;

fn config_error(message: String) -> RetryReason {
    RetryReason { reason: Reason::Config, class: RetryClass::Permanent, message }
}

/// Sets up the TLS side of `rtspsrc`; refused certificates leave their reason in `refusal`.
///
/// # Errors
///
/// Options that contradict each other, or a file of certificates that cannot be used.
pub(super) fn configure(rtspsrc: &gst::Element, options: &TlsOptions, refusal: Refusal) -> Result<(), RetryReason> {
    if !options.verify {
        if !options.allow_insecure {
            return Err(config_error(
                "tls.verify is false; set tls.allow_insecure = true as well if that is meant".into(),
            ));
        }
        rtspsrc.set_property("tls-validation-flags", TlsCertificateFlags::empty());
        return Ok(());
    }
    let pin = options.pin_sha256.as_deref().map(parse_pin).transpose()?;
    let database = match (&pin, &options.ca) {
        (Some(_), _) => Some(trust_nobody()?),
        (None, Some(ca)) => Some(trust(ca)?),
        (None, None) => None,
    };
    if let Some(database) = database {
        rtspsrc.set_property("tls-database", &database);
    }
    rtspsrc.connect("accept-certificate", false, move |values| {
        let accepted = accept(values, pin.as_deref());
        let answer = accepted.is_ok();
        *refusal.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = accepted.err();
        Some(answer.to_value())
    });
    Ok(())
}

fn trust(anchors: &Path) -> Result<gio::TlsFileDatabase, RetryReason> {
    gio::TlsFileDatabase::new(anchors)
        .map_err(|error| config_error(format!("tls.ca {}: {error}; expected certificates as PEM", anchors.display())))
}

/// A list that no certificate is signed by: with a pin, every certificate must go through our own check.
fn trust_nobody() -> Result<gio::TlsFileDatabase, RetryReason> {
    const NOBODY: &[u8] = include_bytes!("nobody.pem");
    let failed = |error: std::io::Error| config_error(format!("tls.pin_sha256 cannot be checked: {error}"));
    // The list is read at once, and only from a path: a file in memory has one while it is open.
    let file = rustix::fs::memfd_create("camring-tls", rustix::fs::MemfdFlags::CLOEXEC);
    let mut file = File::from(file.map_err(|error| failed(error.into()))?);
    file.write_all(NOBODY).map_err(failed)?;
    trust(Path::new(&format!("/proc/self/fd/{}", file.as_raw_fd())))
}

/// `accept-certificate` of rtspsrc: called only when the ordinary check has failed.
fn accept(values: &[glib::Value], pin: Option<&str>) -> Result<(), String> {
    let certificate = values.get(2).and_then(|value| value.get::<gio::TlsCertificate>().ok());
    let errors = values.get(3).and_then(|value| value.get::<TlsCertificateFlags>().ok());
    let Some(pin) = pin else { return Err(words(errors.unwrap_or(TlsCertificateFlags::GENERIC_ERROR))) };
    match certificate.and_then(|certificate| fingerprint(&certificate)) {
        Some(found) if found == pin => Ok(()),
        Some(found) => Err(format!("its SHA-256 is {found}, tls.pin_sha256 wants {pin}")),
        None => Err("its SHA-256 cannot be computed".into()),
    }
}

fn fingerprint(certificate: &gio::TlsCertificate) -> Option<String> {
    let mut checksum = glib::Checksum::new(glib::ChecksumType::Sha256)?;
    checksum.update(&certificate.certificate()?);
    Some(checksum.digest().iter().map(|byte| format!("{byte:02x}")).collect())
}

fn parse_pin(text: &str) -> Result<String, RetryReason> {
    let pin: String = text.chars().filter(|c| *c != ':').collect::<String>().to_ascii_lowercase();
    if pin.len() == 64 && pin.chars().all(|c| c.is_ascii_hexdigit()) {
        return Ok(pin);
    }
    Err(config_error(format!("tls.pin_sha256 has {} hex digits; expected the 64 of a SHA-256", pin.len())))
}

fn words(errors: TlsCertificateFlags) -> String {
    let all = [
        (TlsCertificateFlags::UNKNOWN_CA, "its authority is unknown (set tls.ca or tls.pin_sha256)"),
        (TlsCertificateFlags::BAD_IDENTITY, "it is for another host name"),
        (TlsCertificateFlags::NOT_ACTIVATED, "it is not valid yet"),
        (TlsCertificateFlags::EXPIRED, "it has expired"),
        (TlsCertificateFlags::REVOKED, "it was revoked"),
        (TlsCertificateFlags::INSECURE, "its algorithm is insecure"),
    ];
    let found: Vec<_> = all.iter().filter(|(flag, _)| errors.contains(*flag)).map(|(_, word)| *word).collect();
    if found.is_empty() { "it cannot be checked".into() } else { found.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pins_are_read_with_and_without_colons() {
        let hex = "AB:".repeat(31) + "cd";
        assert_eq!(parse_pin(&hex).expect("a pin"), "ab".repeat(31) + "cd");
        let error = parse_pin("abcd").expect_err("too short");
        assert_eq!(error.message, "tls.pin_sha256 has 4 hex digits; expected the 64 of a SHA-256");
    }

    #[test]
    fn every_fault_of_a_certificate_is_named() {
        let both = TlsCertificateFlags::EXPIRED | TlsCertificateFlags::BAD_IDENTITY;
        assert_eq!(words(both), "it is for another host name, it has expired");
        assert_eq!(words(TlsCertificateFlags::empty()), "it cannot be checked");
    }

    #[test]
    fn unchecked_certificates_need_a_second_word() {
        gst::init().expect("GStreamer");
        let rtspsrc = gst::ElementFactory::make("rtspsrc").build().expect("rtspsrc");
        let options = TlsOptions { verify: false, ..TlsOptions::default() };
        let error = configure(&rtspsrc, &options, Refusal::default()).expect_err("one word is not enough");
        assert_eq!(error.reason, Reason::Config);
        configure(&rtspsrc, &TlsOptions { allow_insecure: true, ..options }, Refusal::default()).expect("two are");
    }
}
