//! Secrets: texts with `${NAME}` in them, and the places where the value of a name is looked for.

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};

use super::name::is_secret_name;

/// Where secrets lie when neither systemd nor the environment gives them.
pub const CREDENTIALS_FOLDER: &str = "/etc/camring/credentials";

const SECRET_MAX: u64 = 64 << 10;

/// A text that may name secrets: literal parts and `${NAME}`; `$${` stands for a literal `${`.
///
/// `Debug` and `Display` show the names and never a literal part.
#[derive(Clone)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Clone)]
enum Part {
    Literal(SecretString),
    Reference(String),
}

impl Template {
    /// Finds the references of a text.
    ///
    /// # Errors
    ///
    /// One sentence that says what is wrong, without the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut parts, mut literal, mut rest) = (Vec::new(), Zeroizing::new(String::new()), text);
        while let Some(at) = rest.find("${") {
            if rest[..at].ends_with('$') {
                literal.push_str(&rest[..at - 1]);
                literal.push_str("${");
                rest = &rest[at + 2..];
                continue;
            }
            literal.push_str(&rest[..at]);
            let (name, after) = rest[at + 2..].split_once('}').ok_or("`${` without `}`")?;
            if !is_secret_name(name) {
                return Err("what stands between `${` and `}` is not a name".to_owned());
            }
            push_literal(&mut parts, &mut literal);
            parts.push(Part::Reference(name.to_owned()));
            rest = after;
        }
        literal.push_str(rest);
        push_literal(&mut parts, &mut literal);
        Ok(Self { parts })
    }

    /// A text without references.
    #[must_use]
    pub fn literal(secret: SecretString) -> Self {
        Self { parts: vec![Part::Literal(secret)] }
    }

    /// The names in the text, in their order.
    pub fn references(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Literal(_) => None,
            Part::Reference(name) => Some(name.as_str()),
        })
    }

    /// Whether a part of the text is written out.
    #[must_use]
    pub fn has_literal(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Literal(_)))
    }

    /// This text with every literal part changed.
    pub(super) fn map_literals(self, change: impl Fn(&str) -> Result<SecretString, String>) -> Result<Self, String> {
        let change = |part| match part {
            Part::Literal(text) => change(text.expose_secret()).map(Part::Literal),
            reference => Ok(reference),
        };
        Ok(Self { parts: self.parts.into_iter().map(change).collect::<Result<_, _>>()? })
    }

    /// The text with every reference replaced by its value, changed by `encode`.
    ///
    /// # Errors
    ///
    /// The first name that `store` cannot give.
    pub fn fill(&self, store: &SecretStore, encode: fn(&str) -> String) -> Result<SecretString, SecretFault> {
        let mut text = Zeroizing::new(String::new());
        for part in &self.parts {
            match part {
                Part::Literal(literal) => text.push_str(literal.expose_secret()),
                Part::Reference(name) => text.push_str(&Zeroizing::new(encode(store.find(name)?.expose_secret()))),
            }
        }
        Ok(SecretString::from(text.as_str()))
    }

    /// The whole text, literal parts included; references stay `${NAME}`.
    #[must_use]
    pub fn exposed(&self) -> String {
        self.write(|literal| literal.expose_secret().to_owned())
    }

    fn write(&self, show: impl Fn(&SecretString) -> String) -> String {
        let part = |part: &Part| match part {
            Part::Literal(literal) => show(literal),
            Part::Reference(name) => format!("${{{name}}}"),
        };
        self.parts.iter().map(part).collect()
    }
}

fn push_literal(parts: &mut Vec<Part>, literal: &mut Zeroizing<String>) {
    if !literal.is_empty() {
        parts.push(Part::Literal(SecretString::from(literal.as_str())));
        **literal = String::new();
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.write(|_| "***".to_owned()))
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Template({self})")
    }
}

impl PartialEq for Template {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

impl PartialEq for Part {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Literal(a), Self::Literal(b)) => a.expose_secret() == b.expose_secret(),
            (Self::Reference(a), Self::Reference(b)) => a == b,
            _ => false,
        }
    }
}

/// Why a secret cannot be had; names places, never a value.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SecretFault {
    /// What was found.
    pub what: String,
    /// What to do.
    pub hint: String,
}

impl SecretFault {
    fn new(what: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { what: what.into(), hint: hint.into() }
    }
}

type Environment = Box<dyn Fn(&str) -> Option<OsString> + Send + Sync>;

/// Where the values of `${NAME}` come from: `$CREDENTIALS_DIRECTORY/NAME`, the environment, a folder of files.
pub struct SecretStore {
    systemd: Option<PathBuf>,
    environment: Environment,
    folder: PathBuf,
}

impl SecretStore {
    /// The places of this process.
    #[must_use]
    pub fn of_process() -> Self {
        Self::new(
            std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from),
            |name: &str| std::env::var_os(name),
            CREDENTIALS_FOLDER,
        )
    }

    /// Places of one's own choice, in the order in which they are asked.
    pub fn new(
        systemd: Option<PathBuf>,
        environment: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static,
        folder: impl Into<PathBuf>,
    ) -> Self {
        Self { systemd, environment: Box::new(environment), folder: folder.into() }
    }

    /// The value behind a name.
    ///
    /// # Errors
    ///
    /// It is nowhere, or the first place that has it cannot be used; later places are not asked then.
    pub fn find(&self, name: &str) -> Result<SecretString, SecretFault> {
        if let Some(folder) = &self.systemd
            && let Some(secret) = read(&folder.join(name), Mode::Any)?
        {
            return Ok(secret);
        }
        if let Some(value) = (self.environment)(name) {
            let place = format!("the environment variable {name}");
            return text_of(value.as_bytes(), &place);
        }
        read(&self.folder.join(name), Mode::Private)?.ok_or_else(|| self.missing(name))
    }

    fn missing(&self, name: &str) -> SecretFault {
        let systemd = match &self.systemd {
            Some(folder) => folder.join(name).display().to_string(),
            None => format!("$CREDENTIALS_DIRECTORY/{name} (not set)"),
        };
        let file = self.folder.join(name);
        SecretFault::new(
            format!("the secret `{name}` is nowhere to be found"),
            format!("looked for {systemd}, the environment variable {name}, {}", file.display()),
        )
    }
}

impl fmt::Debug for SecretStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretStore").field("systemd", &self.systemd).field("folder", &self.folder).finish()
    }
}

/// Reads a password file: 0600, 0640 or stricter, one line; its line end does not count.
///
/// # Errors
///
/// It is missing, readable by everybody, or holds no single line of text.
pub fn read_file(path: &Path) -> Result<SecretString, SecretFault> {
    read(path, Mode::Private)?.ok_or_else(|| {
        SecretFault::new(format!("{} does not exist", path.display()), "create it with mode 0600 or 0640")
    })
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Any,
    Private,
}

fn read(path: &Path, mode: Mode) -> Result<Option<SecretString>, SecretFault> {
    let place = path.display().to_string();
    let file = match open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(&place, &error)),
    };
    let facts = file.metadata().map_err(|error| unreadable(&place, &error))?;
    if !facts.is_file() {
        return Err(SecretFault::new(format!("{place} is not a regular file"), "put the secret into a file"));
    }
    let bits = facts.permissions().mode() & 0o777;
    if mode == Mode::Private && bits & !0o640 != 0 {
        let what = format!("{place} has mode {bits:04o}, so that others may read or change it");
        return Err(SecretFault::new(what, format!("chmod 0640 {place}")));
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity(facts.len().min(SECRET_MAX) as usize + 1));
    file.take(SECRET_MAX).read_to_end(&mut bytes).map_err(|error| unreadable(&place, &error))?;
    text_of(&bytes, &place).map(Some)
}

fn open(path: &Path) -> io::Result<File> {
    // A FIFO in its place must not hang us.
    let flags = rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path)
}

fn unreadable(place: &str, error: &io::Error) -> SecretFault {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => "let the user or group of the service read it (chmod 0640, chgrp)",
        _ => "put the secret there or name another file",
    };
    SecretFault::new(format!("{place} cannot be read: {error}"), hint)
}

fn text_of(bytes: &[u8], place: &str) -> Result<SecretString, SecretFault> {
    let hint = "it must hold one line of text: the secret";
    let text = std::str::from_utf8(bytes).map_err(|_| SecretFault::new(format!("{place} is not UTF-8"), hint))?;
    let text = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    if text.is_empty() {
        return Err(SecretFault::new(format!("{place} is empty"), hint));
    }
    if text.chars().any(char::is_control) {
        return Err(SecretFault::new(format!("{place} holds several lines or control characters"), hint));
    }
    Ok(SecretString::from(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HARD: &str = "p@ss:w/rd#%?";

    fn store(folder: &Path, systemd: Option<&Path>, environment: &'static [(&str, &str)]) -> SecretStore {
        let lookup =
            move |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
        SecretStore::new(systemd.map(Path::to_owned), lookup, folder)
    }

    fn write(path: &Path, text: &str, mode: u32) {
        std::fs::write(path, text).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn fill(template: &Template, store: &SecretStore) -> Result<String, SecretFault> {
        template.fill(store, str::to_owned).map(|text| text.expose_secret().to_owned())
    }

    #[test]
    fn references_are_found_and_literals_are_hidden() {
        let template = Template::parse("a${one}b${two}").unwrap();
        assert_eq!(template.references().collect::<Vec<_>>(), ["one", "two"]);
        assert_eq!(template.to_string(), "***${one}***${two}");
        assert_eq!(format!("{template:?}"), "Template(***${one}***${two})");
        assert_eq!(template.exposed(), "a${one}b${two}");
        assert!(!Template::parse("${one}").unwrap().has_literal());
    }

    #[test]
    fn a_doubled_dollar_is_literal() {
        let folder = tempfile::tempdir().unwrap();
        let template = Template::parse("a$${x}$$b").unwrap();
        assert_eq!(template.references().count(), 0);
        assert_eq!(fill(&template, &store(folder.path(), None, &[])), Ok("a${x}$$b".to_owned()));
        assert_ne!(Template::parse("a${x}$$b").unwrap(), template);
    }

    #[test]
    fn a_broken_reference_is_refused_without_its_text() {
        assert_eq!(Template::parse("x${y").unwrap_err(), "`${` without `}`");
        assert_eq!(Template::parse("${../etc}").unwrap_err(), "what stands between `${` and `}` is not a name");
    }

    #[test]
    fn systemd_comes_before_the_environment_and_that_before_the_folder() {
        let (folder, systemd) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        write(&folder.path().join("pw"), "from folder", 0o600);
        let template = Template::parse("${pw}").unwrap();
        assert_eq!(fill(&template, &store(folder.path(), None, &[])), Ok("from folder".to_owned()));
        let environment: &[_] = &[("pw", "from environment")];
        assert_eq!(fill(&template, &store(folder.path(), None, environment)), Ok("from environment".to_owned()));
        write(&systemd.path().join("pw"), "from systemd\n", 0o444);
        let all = store(folder.path(), Some(systemd.path()), environment);
        assert_eq!(fill(&template, &all), Ok("from systemd".to_owned()));
    }

    #[test]
    fn a_hard_password_survives_a_file_with_any_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pw");
        for end in ["", "\n", "\r\n"] {
            write(&path, &format!("{HARD}{end}"), 0o640);
            assert_eq!(read_file(&path).unwrap().expose_secret(), HARD);
        }
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pw");
        for mode in [0o644, 0o660, 0o604, 0o700] {
            write(&path, HARD, mode);
            let fault = store(folder.path(), None, &[]).find("pw").unwrap_err();
            assert_eq!(fault.hint, format!("chmod 0640 {}", path.display()), "{mode:o}");
            assert!(!format!("{fault:?}").contains(HARD));
        }
    }

    #[test]
    fn a_secret_that_is_no_line_of_text_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pw");
        for text in ["", "\n", "a\nb", "a\0"] {
            write(&path, text, 0o600);
            assert!(read_file(&path).is_err(), "{text:?}");
        }
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(read_file(&path).unwrap_err().what.ends_with("is not UTF-8"));
        assert!(read_file(folder.path()).unwrap_err().what.ends_with("is not a regular file"));
    }

    #[test]
    fn a_fifo_in_the_place_of_a_secret_does_not_hang() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pw");
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(read_file(&path).unwrap_err().what.ends_with("is not a regular file"));
    }

    #[test]
    fn a_missing_secret_says_where_it_was_looked_for() {
        let fault = store(Path::new("/nowhere"), None, &[]).find("front_pw").unwrap_err();
        assert_eq!(fault.what, "the secret `front_pw` is nowhere to be found");
        assert_eq!(
            fault.hint,
            "looked for $CREDENTIALS_DIRECTORY/front_pw (not set), the environment variable front_pw, \
             /nowhere/front_pw"
        );
    }
}
