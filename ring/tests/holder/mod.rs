//! A reader that holds locks: a process of its own, with nothing but the standard library of another language.
#![allow(dead_code)]

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// Holds shared locks on single bytes of a segment until it is told otherwise, killed or dropped.
pub struct Holder {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

const HOLDER: &str = "import fcntl, struct, sys\n\
    file = open(sys.argv[1], 'rb')\n\
    def call(kind, start):\n\
    \x20   fcntl.fcntl(file, fcntl.F_OFD_SETLK, struct.pack('hhqqi4x', kind, 0, start, 1, 0))\n\
    for line in sys.stdin:\n\
    \x20   word, start, count, step = line.split()\n\
    \x20   kind = fcntl.F_RDLCK if word == 'hold' else fcntl.F_UNLCK\n\
    \x20   for place in range(int(count)):\n\
    \x20       call(kind, int(start) + place * int(step))\n\
    \x20   print('done', flush=True)\n";

impl Holder {
    pub fn new(file: &Path) -> Self {
        let mut python = Command::new("python3");
        python.args(["-c", HOLDER]).arg(file).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().expect("python3 is installed");
        let (input, output) = (child.stdin.take().unwrap(), BufReader::new(child.stdout.take().unwrap()));
        Self { child, input, output }
    }

    /// `word` is `hold` or `free`: `count` bytes from `start` on, `step` apart.
    pub fn say(&mut self, word: &str, start: u64, count: u64, step: i64) {
        writeln!(self.input, "{word} {start} {count} {step}").unwrap();
        let mut line = String::new();
        self.output.read_line(&mut line).unwrap();
        assert_eq!(line, "done\n");
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
