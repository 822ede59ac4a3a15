//! A network of its own for a camera and a daemon: a network namespace with a loopback device, and ways to disturb it.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};

use super::{Process, ended};

/// Exists as long as this value; needs root.
pub struct Net {
    /// Sleeps in the namespace and thereby keeps it.
    keeper: Process,
}

impl Net {
    /// `None`, said on standard output, where this user or this machine cannot have one.
    pub fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: a network of one's own needs root");
            return None;
        }
        let mut keeper = Process(
            Command::new("unshare")
                .args(["--net", "sh", "-c", "ip link set lo mtu 1500 up && echo up && exec cat"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let mut line = String::new();
        BufReader::new(keeper.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        if line.trim() != "up" {
            println!("skipped: no network of one's own here");
            return None;
        }
        Some(Self { keeper })
    }

    /// A command inside, with no arguments yet.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.keeper.pid().to_string(), "--net", "--"]).arg(program);
        command
    }

    /// The same, where names are looked up at 127.0.0.53.
    pub fn command_with_resolver(&self, program: impl AsRef<OsStr>) -> Command {
        const MOUNT: &str =
            r#"d=$(mktemp) && echo nameserver 127.0.0.53 >$d && mount --bind $d /etc/resolv.conf && exec "$@""#;
        let mut command = self.command("unshare");
        command.args(["--mount", "sh", "-c", MOUNT, "sh"]).arg(program);
        command
    }

    /// Replaces every rule by one that each packet on the loopback device meets, such as `udp dport 53 drop`.
    pub fn rule(&self, rule: &str) {
        self.nft(&format!("flush ruleset\nadd table ip own\nadd chain ip own in {{ type filter hook input priority 0 ; }}\nadd rule ip own in {rule}\n"));
    }

    /// A second network at the other end of a cable: here is 10.77.0.1, there is 10.77.0.2, and multicast goes through it.
    pub fn beside(&self) -> Option<Self> {
        let there = Self::new()?;
        let pid = there.keeper.pid().to_string();
        self.ip(&["link", "add", "cable", "type", "veth", "peer", "name", "cable", "netns", &pid]);
        for (net, address) in [(self, "10.77.0.1/24"), (&there, "10.77.0.2/24")] {
            net.ip(&["address", "add", address, "dev", "cable"]);
            net.ip(&["link", "set", "cable", "up"]);
            net.ip(&["route", "add", "224.0.0.0/4", "dev", "cable"]);
        }
        Some(there)
    }

    /// The multicast groups that somebody inside has joined through the cable.
    pub fn groups(&self) -> String {
        self.ip(&["maddress", "show", "dev", "cable"])
    }

    fn ip(&self, arguments: &[&str]) -> String {
        let mut command = self.command("ip");
        command.args(arguments);
        let said = ended(command);
        assert_eq!(said.code, Some(0), "ip {arguments:?}: {}", said.stderr);
        said.stdout
    }

    /// Lets everything pass again.
    pub fn no_rule(&self) {
        self.nft("flush ruleset\n");
    }

    fn nft(&self, text: &str) {
        let mut command = self.command("nft");
        command.args(["-f", "-"]).stdin(Stdio::piped());
        let mut child = Process(command.spawn().unwrap());
        child.0.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        assert!(child.wait().success(), "nft refuses {text:?}");
    }

    /// Lets through so many bits a second, written as `tc` wants it (`800kbit`); `None`: as many as come.
    pub fn bandwidth(&self, rate: Option<&str>) {
        let mut command = self.command("tc");
        match rate {
            Some(rate) => command
                .args(["qdisc", "add", "dev", "lo", "root", "tbf", "rate", rate, "burst", "32k", "latency", "100ms"]),
            None => command.args(["qdisc", "del", "dev", "lo", "root"]),
        };
        let said = ended(command);
        assert_eq!(said.code, Some(0), "{}", said.stderr);
    }
}
