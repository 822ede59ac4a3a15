//! A camera for the configuration file, made of what was found: what `camring check` accepts, without a password.

use super::facts::Facts;
use crate::config::{Camera, Source};

/// The block; a secret in the address is left to whoever knows it.
pub(super) fn of(camera: &Camera, facts: &Facts) -> String {
    let mut out = String::new();
    let name = camera.name.as_str();
    out.push_str(&format!("# {}\n", summary(facts)));
    for advice in &facts.advice {
        out.push_str(&format!("# {}\n", plain(advice)));
    }
    out.push_str(&format!("[camera.{name}]\n"));
    let (Source::Rtsp(address) | Source::Http(address)) = &camera.source else { return out };
    // Shows what looks like a password or token as ***.
    let url = address.url.to_string();
    if address.url.has_secret() {
        out.push_str("# *** stands for a secret that was on the command line: put a ${NAME} there (docs/operations.md, Passwords)\n");
    }
    out.push_str(&format!("url = {}\n", quoted(&url)));
    if let Some(user) = &address.user {
        out.push_str(&format!("user = {}\n", quoted(&user.exposed())));
    }
    if address.password.is_some() {
        let secret = format!("{}_pw", name.replace('-', "_"));
        out.push_str(&format!(
            "password = \"${{{secret}}}\"    # a credential, a variable, or /etc/camring/credentials/{secret}\n"
        ));
    }
    if facts.transport != "tcp" {
        out.push_str(&format!("transport = {}\n", quoted(&facts.transport)));
    }
    if facts.marks_slices {
        out.push_str("access_units = \"parse\"\n");
    }
    if facts.interlaced {
        out.push_str("deinterlace = \"linear\"\n");
    }
    out
}

fn summary(facts: &Facts) -> String {
    let fps = facts.fps.map_or_else(|| "? fps".to_owned(), |fps| format!("{fps} fps"));
    let rate = facts.kbit_per_s.map(|rate| format!(", {rate} kbit/s")).unwrap_or_default();
    plain(&format!("{} {}x{}, {fps}{rate}, decoded by {}", facts.codec, facts.width, facts.height, facts.decoder))
}

/// One line, whatever the camera has put into its words.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_block_holds_what_differs_from_the_defaults_and_no_password() {
        let camera = Camera::from_url("yard-2", "rtsp://viewer:s3cr3t@10.0.0.21/a\"b", None, None);
        let Ok(camera) = camera else {
            // The quote is no part of an address: then without it.
            let camera =
                Camera::from_url("yard-2", "rtsp://viewer:s3cr3t@10.0.0.21/a", None, None).expect("an address");
            return check(&camera);
        };
        check(&camera);
    }

    fn check(camera: &Camera) {
        let facts =
            Facts { transport: "udp".into(), marks_slices: true, advice: vec!["one\ntwo".into()], ..Facts::default() };
        let block = of(camera, &facts);
        assert!(!block.contains("s3cr3t"), "{block}");
        for line in [
            "[camera.yard-2]",
            "user = \"viewer\"",
            "password = \"${yard_2_pw}\"",
            "transport = \"udp\"",
            "access_units = \"parse\"",
            "# one?two",
        ] {
            assert!(block.contains(line), "no {line} in\n{block}");
        }
        assert!(toml::from_str::<toml::Table>(&block).is_ok(), "{block}");
    }
}
