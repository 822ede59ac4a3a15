//! GStreamer: its version and what is known of it, the plugins that sessions need, and who decodes which codec.

use super::Check;
use crate::diagnosis::Finding;
use crate::pipeline::{self, CodecSupport};

/// The packages of Debian that hold what sessions need.
const PACKAGES: &str = "apt-get install gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-libav glib-networking";

/// The checks of everything that receives and decodes.
pub(super) fn checks() -> Vec<Check> {
    let host = match pipeline::support() {
        Ok(host) => host,
        Err(why) => return vec![Check::host("gstreamer", Finding::fail("gstreamer", why.message, PACKAGES))],
    };
    let mut checks = vec![Check::host("gstreamer", version(host.version))];
    if !host.missing.is_empty() {
        let found = format!("GStreamer has no {}", host.missing.join(", no "));
        checks.push(Check::host("gstreamer", Finding::fail("plugins_missing", found, PACKAGES)));
    }
    checks.extend(host.codecs.iter().map(|codec| Check {
        check: "codecs",
        subject: codec.codec.to_owned(),
        finding: decoders(codec),
    }));
    checks.push(Check::host("tls", tls(host.has_tls)));
    checks
}

type Version = (u32, u32, u32);

/// What is known of versions: from which one on, before which one, what, and whether it deserves a warning.
const KNOWN: [(Version, Version, &str, bool); 2] = [
    ((1, 23, 0), (1, 24, 2), "its libav decoders leak a packet for each picture; upgrade to 1.24.2 or newer", true),
    (
        (0, 0, 0),
        (1, 26, 7),
        "sends no keep-alive while pictures flow in the RTSP connection: cameras that count requests only as signs of life cut each session",
        false,
    ),
];

fn version(version: Version) -> Finding {
    let shown = format!("GStreamer {}.{}.{}", version.0, version.1, version.2);
    if version < (1, 22, 0) {
        let found = format!("{shown} is too old; expected 1.22 or newer");
        return Finding::fail("gstreamer", found, "Debian 12 or newer has it");
    }
    let known = KNOWN.iter().find(|(from, before, ..)| (*from..*before).contains(&version));
    match known {
        None => Finding::ok("gstreamer", shown),
        Some((.., what, true)) => {
            Finding::warn("gstreamer", format!("{shown}: {what}"), "Debian 12 has 1.22.0, Debian 13 has 1.26")
        }
        Some((.., what, false)) => Finding::ok("gstreamer", format!("{shown}; known of it: {what}")),
    }
}

fn decoders(codec: &CodecSupport) -> Finding {
    let CodecSupport { codec: word, missing, software, hardware } = codec;
    let common = matches!(*word, "h264" | "h265" | "mjpeg");
    if !missing.is_empty() || (software.is_empty() && hardware.is_empty()) {
        let what = if missing.is_empty() { "no decoder".to_owned() } else { format!("no {}", missing.join(", no ")) };
        let found = format!("{word} cannot be received here: {what}");
        return if common {
            Finding::fail("decoder_missing", found, PACKAGES)
        } else {
            Finding::warn("decoder_missing", found, PACKAGES)
        };
    }
    let list = |names: &[&str]| if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    Finding::ok("decoders", format!("software: {}; hardware: {}", list(software), list(hardware)))
}

fn tls(has_tls: bool) -> Finding {
    if has_tls {
        return Finding::ok("tls", "rtsps:// can be received");
    }
    Finding::warn("tls_missing", "rtsps:// cannot be received: GLib has no TLS", "apt-get install glib-networking")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnosis::Level;

    #[test]
    fn what_is_known_of_a_version_is_said_and_a_leaky_one_is_warned_of() {
        assert_eq!(version((1, 20, 3)).level, Level::Fail);
        let old = version((1, 22, 0));
        assert!(old.level == Level::Ok && old.found.contains("no keep-alive"), "{old:?}");
        assert_eq!(version((1, 24, 1)).level, Level::Warn);
        assert_eq!(version((1, 26, 7)).found, "GStreamer 1.26.7");
    }

    #[test]
    fn a_codec_without_a_decoder_fails_where_cameras_use_it() {
        let of = |codec, software: &[&'static str]| {
            decoders(&CodecSupport { codec, missing: vec![], software: software.to_vec(), hardware: vec![] }).level
        };
        assert_eq!(
            (of("h264", &[]), of("vp9", &[]), of("h264", &["avdec_h264"])),
            (Level::Fail, Level::Warn, Level::Ok)
        );
    }
}
