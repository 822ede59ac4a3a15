//! Quoting a configuration file without its secrets: a copy of the text with `***` in their place.

use std::ops::Range;

use toml_parser::Source;
use toml_parser::lexer::{Token, TokenKind};

use super::url::{looks_secret, secret_spans};

/// A text with its secrets cut out, and the way from old offsets to new ones.
#[derive(Debug)]
pub(super) struct Masked {
    pub(super) text: String,
    cuts: Vec<Range<usize>>,
}

const STARS: &str = "***";

impl Masked {
    /// Masks every secret of a TOML text, also of one with wrong syntax.
    ///
    /// A value is a secret when its key is one, is no key at all, or when it holds an address with a password.
    /// `is_public` says of a key (its last part) whether its value may be shown.
    pub(super) fn new(source: &str, is_public: impl Fn(&str) -> bool) -> Self {
        let cuts: Vec<_> = cuts(source, &is_public).into_iter().flat_map(|cut| by_line(source, cut)).collect();
        let (mut text, mut from) = (String::with_capacity(source.len()), 0);
        for cut in &cuts {
            text.push_str(&source[from..cut.start]);
            text.push_str(STARS);
            from = cut.end;
        }
        text.push_str(&source[from..]);
        Self { text, cuts }
    }

    /// Where a stretch of the old text is in the new one; inside a secret, all of its stars.
    pub(super) fn map(&self, span: &Range<usize>) -> Range<usize> {
        let start = self.offset(span.start, false);
        start..self.offset(span.end, true).max(start)
    }

    fn offset(&self, at: usize, is_end: bool) -> usize {
        let mut shift = 0_isize;
        for cut in &self.cuts {
            if at >= cut.end {
                shift += STARS.len().cast_signed() - cut.len().cast_signed();
            } else if at > cut.start {
                let inside = cut.start.saturating_add_signed(shift);
                return if is_end { inside + STARS.len() } else { inside };
            } else {
                break;
            }
        }
        at.saturating_add_signed(shift)
    }
}

fn cuts(source: &str, is_public: &impl Fn(&str) -> bool) -> Vec<Range<usize>> {
    let tokens = Source::new(source).lex().into_vec();
    let mut cuts: Vec<Range<usize>> = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let span = span_of(token);
        if cuts.last().is_some_and(|cut| span.start < cut.end) {
            continue;
        }
        match token.kind() {
            TokenKind::Equals => {
                let key = key_before(source, &tokens[..at]);
                let is_table = next_kind(&tokens[at + 1..]) == Some(TokenKind::LeftCurlyBracket);
                if !is_public(key) && (looks_secret(key) || !is_table) {
                    cuts.extend(secret_value(source, &tokens[at + 1..]));
                }
            }
            TokenKind::Atom if looks_secret(&source[span.clone()]) && !is_key(&tokens[at + 1..]) => {
                cuts.push(span.end..line_end(source, span.end));
            }
            TokenKind::Comment if looks_secret(&source[span.clone()]) => cuts.push(span.start + 1..span.end),
            _ => cuts.extend(secret_spans(&source[span.clone()]).into_iter().map(|cut| shifted(&cut, span.start))),
        }
    }
    cuts
}

/// The pieces of a cut without its line ends, so that lines keep their numbers.
fn by_line(source: &str, cut: Range<usize>) -> Vec<Range<usize>> {
    let mut at = cut.start;
    let piece = |line: &str| {
        let piece = at..at + line.trim_end_matches('\n').len();
        at += line.len();
        piece
    };
    source[cut].split_inclusive('\n').map(piece).filter(|piece| !piece.is_empty()).collect()
}

fn span_of(token: &Token) -> Range<usize> {
    token.span().start()..token.span().end()
}

fn shifted(span: &Range<usize>, by: usize) -> Range<usize> {
    span.start + by..span.end + by
}

fn key_before<'a>(source: &'a str, tokens: &[Token]) -> &'a str {
    let key = tokens.iter().rev().find(|token| token.kind() != TokenKind::Whitespace);
    key.map_or("", |token| source[span_of(token)].trim_matches(['"', '\'']))
}

/// Whether what precedes these tokens can be a key; `password: x` is a password in the wrong language.
fn is_key(after: &[Token]) -> bool {
    matches!(next_kind(after), Some(TokenKind::Equals | TokenKind::Dot | TokenKind::RightSquareBracket))
}

fn line_end(source: &str, from: usize) -> usize {
    source[from..].find('\n').map_or(source.len(), |at| from + at)
}

fn next_kind(tokens: &[Token]) -> Option<TokenKind> {
    tokens.iter().map(Token::kind).find(|kind| *kind != TokenKind::Whitespace)
}

/// The value after `=`: the inside of one string, or everything up to the end of the line.
fn secret_value(source: &str, after: &[Token]) -> Option<Range<usize>> {
    let mut after = after.iter().skip_while(|token| token.kind() == TokenKind::Whitespace);
    let first = after.next().filter(|first| first.kind() != TokenKind::Newline)?;
    let span = span_of(first);
    let closed = after.find(|token| token.kind() != TokenKind::Whitespace).is_none_or(|next| {
        use TokenKind::{Comma, Comment, Eof, Newline, RightCurlyBracket};
        matches!(next.kind(), Comma | Comment | Eof | Newline | RightCurlyBracket)
    });
    let quote = match first.kind() {
        TokenKind::BasicString => "\"",
        TokenKind::LiteralString => "'",
        TokenKind::MlBasicString => "\"\"\"",
        TokenKind::MlLiteralString => "'''",
        _ => "",
    };
    let text = &source[span.clone()];
    let inside = text.strip_prefix(quote).and_then(|text| text.strip_suffix(quote)).filter(|_| !quote.is_empty());
    let cut = match inside {
        Some(inside) if closed => span.start + quote.len()..span.start + quote.len() + inside.len(),
        _ => span.start..line_end(source, span.end),
    };
    let value = &source[cut.clone()];
    let is_reference = value.starts_with("${") && value.find('}') == Some(value.len() - 1);
    (!value.is_empty() && !is_reference).then_some(cut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mask(source: &str) -> String {
        Masked::new(source, |key| ["url", "user", "slots", "tls", "pattern"].contains(&key)).text
    }

    #[test]
    fn passwords_and_unknown_keys_are_not_quoted() {
        for (source, shown) in [
            ("password = \"hunter2\"\nslots = 8\n", "password = \"***\"\nslots = 8\n"),
            ("front.password = 'hunter2' # x\n", "front.password = '***' # x\n"),
            ("\"password\" = 'hunter2'", "\"password\" = '***'"),
            ("front = { user = \"a\", password = \"hunter2\" }", "front = { user = \"a\", password = \"***\" }"),
            ("passwrod=\"hunter2\"", "passwrod=\"***\""),
            ("password = \"\"\"hun\nter2\"\"\"\nslots = 1", "password = \"\"\"***\n***\"\"\"\nslots = 1"),
            ("# password = \"hunter2\"\nslots = 1", "#***\nslots = 1"),
            ("password = \"${pw}\"", "password = \"${pw}\""),
            ("password = \"${pw}hunter2\"", "password = \"***\""),
        ] {
            assert_eq!(mask(source), shown);
        }
    }

    #[test]
    fn broken_syntax_hides_more_rather_than_less() {
        for source in [
            "password = hunter2\n",
            "password = \"hunter2\n",
            "password = p@ss,hunter2 # x\n",
            "password = \"x\"hunter2\"\n",
            "password \"hunter2\"\n",
            "password: hunter2\n",
            "password: \"hunter2\"\n",
            "front_pw => 'hunter2'\n",
            "password = [\"hunter2\"]",
            "password = { a = \"hunter2\" }",
            "url = \"rtsp://u:hunter2@h",
            "url = rtsp://u:hunter2@h",
        ] {
            let shown = mask(source);
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[test]
    fn an_unclosed_password_is_hidden_to_its_last_letter() {
        for (source, shown) in [
            ("password = \"hunté\nslots = 1", "password = ***\nslots = 1"),
            ("password = 'hunté", "password = ***"),
            ("password = \"\"\"hunté\né", "password = ***\n***"),
            ("password = \"", "password = ***"),
        ] {
            assert_eq!(mask(source), shown);
        }
    }

    #[test]
    fn addresses_lose_their_user_and_password() {
        assert_eq!(mask("url = \"rtsp://u:p@ss@h/x\""), "url = \"rtsp://***@h/x\"");
        assert_eq!(mask("url = \"rtsp://h/x?token=abc&c=1\""), "url = \"rtsp://h/x?token=***&c=1\"");
        assert_eq!(mask("url = \"rtsp://h/x?channel=1\""), "url = \"rtsp://h/x?channel=1\"");
    }

    #[test]
    fn offsets_follow_the_text() {
        let source = "password = \"hunter2\"\nslots = 2\n";
        let masked = Masked::new(source, |key| key == "slots");
        let at = source.find('2').map(|_| source.rfind('2').unwrap()).unwrap();
        let span = masked.map(&(at..at + 1));
        assert_eq!(&masked.text[span], "2");
        let secret = source.find("hunter2").unwrap();
        assert_eq!(&masked.text[masked.map(&(secret..secret + 7))], "***");
        assert_eq!(&masked.text[masked.map(&(secret + 2..secret + 3))], "***");
        assert_eq!(&masked.text[masked.map(&(secret - 1..secret + 8))], "\"***\"");
        assert_eq!(masked.map(&(source.len()..source.len())), masked.text.len()..masked.text.len());
    }
}
