//! Names: of cameras and outputs, of segments in the memory mount, of secrets.

use std::fmt;

/// The longest camera or output name, in bytes.
pub const NAME_MAX: usize = 48;
/// The longest segment name, in bytes: what the ring's header holds with its final NUL.
pub const SEGMENT_MAX: usize = 255;
/// The rule for camera and output names, for messages.
pub const NAME_RULE: &str = "1 to 48 of a-z, 0-9, `-` and `_`, beginning with a letter or digit";

/// The name of a camera or of an output: `[a-z0-9][a-z0-9_-]{0,47}`.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct CameraName(String);

impl CameraName {
    /// Takes a name that follows the rule.
    ///
    /// # Errors
    ///
    /// One sentence that says which part of [`NAME_RULE`] is broken.
    pub fn new(name: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let Some(first) = name.chars().next() else { return Err("it is empty".to_owned()) };
        if let Some(c) = name.chars().find(|c| !allowed(*c) && !"-_".contains(*c)) {
            return Err(format!("{c:?} is not allowed"));
        }
        if !allowed(first) {
            return Err(format!("it begins with {first:?}"));
        }
        if name.len() > NAME_MAX {
            return Err(format!("it has {} characters", name.len()));
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The public name of this camera's segment when the file names no other.
    #[must_use]
    pub fn default_segment(&self) -> String {
        format!("camring.{}", self.0)
    }

    /// The public name of the segment of this camera's output `output`.
    #[must_use]
    pub fn output_segment(&self, output: &Self) -> String {
        format!("{}.{output}", self.default_segment())
    }
}

impl fmt::Display for CameraName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl std::borrow::Borrow<str> for CameraName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// Checks the public name of a segment: what `shm_open` accepts without its slash, and none of our own folders.
///
/// # Errors
///
/// One sentence that says what is wrong with it.
pub fn check_segment(name: &str) -> Result<(), String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    if let Some(c) = name.chars().find(|c| !allowed(*c)) {
        return Err(format!("{c:?} is not allowed"));
    }
    if !name.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        return Err("it does not begin with a letter or digit".to_owned());
    }
    if name.len() > SEGMENT_MAX {
        return Err(format!("it has {} characters", name.len()));
    }
    if name == "camring.d" || (name.starts_with("camring-") && name.ends_with(".d")) {
        return Err("that is the folder of the rings".to_owned());
    }
    Ok(())
}

/// Whether `name` may stand in `${…}`: a file name and an environment variable at once.
#[must_use]
pub fn is_secret_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        && name.len() <= 255
}

/// The candidate that `found` was most likely meant to be.
#[must_use]
pub fn did_you_mean<'a>(found: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (found.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(found, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= allowed && *distance < candidate.chars().count())
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn camera_names_need_no_escaping_anywhere() {
        for good in ["front", "0", "a-b_c", &"x".repeat(48)] {
            assert!(CameraName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "Front", "front.small", "-front", "_front", "a/b", "höhe", "a b", &"x".repeat(49)] {
            assert!(CameraName::new(bad).is_err(), "{bad}");
        }
        assert_eq!(CameraName::new("Front"), Err("'F' is not allowed".to_owned()));
    }

    #[test]
    fn segment_names_stay_in_the_mount_and_off_our_folders() {
        for good in ["camring.front", "camring.front.small", "Yard-1", "psm_1234"] {
            assert_eq!(check_segment(good), Ok(()));
        }
        for bad in ["", "a/b", "..", ".front", "camring.d", "camring-1000.d", &"x".repeat(256), "a\0b"] {
            assert!(check_segment(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn secret_names_cannot_leave_the_credentials_folder() {
        assert!(is_secret_name("front_pw"));
        assert!(is_secret_name("FRONT.pw-1"));
        for bad in ["", "..", ".x", "a/b", "a b", "a}"] {
            assert!(!is_secret_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_slip_of_the_finger_is_understood_and_a_different_word_is_not() {
        let keys = ["slots", "format", "transport", "max_fps"];
        assert_eq!(did_you_mean("tranport", keys), Some("transport"));
        assert_eq!(did_you_mean("solts", keys), Some("slots"));
        assert_eq!(did_you_mean("max-fps", keys), Some("max_fps"));
        assert_eq!(did_you_mean("colour", keys), None);
        assert_eq!(did_you_mean("x", ["y"]), None);
    }
}
