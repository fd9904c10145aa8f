//! The emulator's monitor, which shows the state of a silent host's processors.
//!
//! The monitor speaks QMP, one JSON object per line. Another thread of the emulator serves it, so
//! it answers even if the machine's kernel does not.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

/// Timeout of one answer of the emulator.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// Commands whose answers are logged.
const QUESTIONS: [&str; 2] = ["info cpus", "info registers -a"];

/// A connection to an emulator's monitor, and the log of its answers.
#[derive(Debug)]
pub(super) struct Monitor {
    stream: BufReader<UnixStream>,
    log: PathBuf,
    /// Whether the handshake is complete.
    ready: bool,
}

impl Monitor {
    /// Wraps a connection. The handshake happens at the first command.
    pub(super) fn new(stream: UnixStream, log: PathBuf) -> io::Result<Monitor> {
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.set_write_timeout(Some(ANSWER_LIMIT))?;
        Ok(Monitor { stream: BufReader::new(stream), log, ready: false })
    }

    /// Queries the state of all processors. The complete answers go to the log, under `title`.
    ///
    /// # Errors
    /// The emulator does not answer, or its answer cannot be parsed.
    pub(super) fn look(&mut self, title: &str) -> io::Result<Vec<Processor>> {
        let mut text = format!("=== {title} ===\n");
        let mut answer = self.ask_all(&mut text);
        if let Err(error) = &answer {
            text.push_str(&format!("no answer: {error}\n"));
        }
        let log = File::options().create(true).append(true).open(&self.log);
        let written = log.and_then(|mut log| log.write_all(text.as_bytes()));
        if let (Ok(_), Err(error)) = (&answer, written) {
            answer = Err(error);
        }
        answer.map(|registers| Processor::parse_all(&registers))
    }

    /// Returns the answer to the last command. All answers are added to `text`.
    fn ask_all(&mut self, text: &mut String) -> io::Result<String> {
        let mut last = String::new();
        for question in QUESTIONS {
            last = self.ask(question)?.replace('\r', "");
            text.push_str(&format!("--- {question} ---\n{}\n", last.trim_matches('\n')));
        }
        Ok(last)
    }

    fn ask(&mut self, question: &str) -> io::Result<String> {
        if !self.ready {
            self.execute(&json!({"execute": "qmp_capabilities"}))?;
            self.ready = true;
        }
        let command = json!({
            "execute": "human-monitor-command",
            "arguments": {"command-line": question},
        });
        let answer = self.execute(&command)?;
        answer.as_str().map(str::to_owned).ok_or_else(|| io::Error::other("the answer is no text"))
    }

    /// Sends a command and waits for its answer. Skips the greeting, and events in between.
    fn execute(&mut self, command: &Value) -> io::Result<Value> {
        let mut line = command.to_string();
        line.push('\n');
        self.stream.get_ref().write_all(line.as_bytes())?;
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let mut message: Value = serde_json::from_str(&line)?;
            if let Some(error) = message.get("error") {
                return Err(io::Error::other(error.to_string()));
            }
            if let Some(answer) = message.get_mut("return") {
                return Ok(answer.take());
            }
        }
    }
}

/// The parts of a processor's state that show its activity.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Processor {
    /// The address of the current instruction, or of one shortly before: the emulator records no
    /// exact address.
    place: u64,
    privilege: u64,
    halted: bool,
    /// Features that the kernel has enabled.
    cr4: u64,
    /// The base of GS: in a kernel, the processor's own data.
    gs: u64,
}

impl Processor {
    /// Parses the answer to `info registers -a`.
    fn parse_all(text: &str) -> Vec<Processor> {
        text.split("CPU#").skip(1).filter_map(Processor::parse).collect()
    }

    fn parse(text: &str) -> Option<Processor> {
        let number = |word: &str| {
            let digits = word.split(|c: char| !c.is_ascii_hexdigit()).next()?;
            u64::from_str_radix(digits, 16).ok()
        };
        let after = |key: &str| Some(text.split_once(key)?.1);
        let value = |key: &str| number(after(key)?);
        Some(Processor {
            place: value("RIP=").or_else(|| value("EIP="))?,
            privilege: value("CPL=")?,
            halted: value("HLT=")? == 1,
            cr4: value("CR4=")?,
            // After the selector.
            gs: number(after("GS =")?.split(' ').nth(1)?)?,
        })
    }

    /// Returns whether the processor runs a guest; `host` is its state in its own kernel.
    fn is_in_guest(&self, host: &Processor) -> bool {
        let are_kernels = [self, host].iter().all(|processor| processor.gs >> 63 == 1);
        self.cr4 != host.cr4 || are_kernels && self.gs != host.gs
    }

    /// Returns a description of the processor's location; `host` is its state in its own kernel.
    fn whereabouts(&self, host: Option<&Processor>) -> &'static str {
        let is_in_guest = host.is_some_and(|host| self.is_in_guest(host));
        match (self.halted, is_in_guest, self.privilege) {
            (true, false, _) => "idle",
            (true, true, _) => "idle in a guest",
            (false, true, 0) => "in a guest's kernel",
            (false, true, _) => "in a guest's program",
            (false, false, 0) => "in the host's kernel",
            (false, false, _) => "in a program of the host",
        }
    }
}

/// Describes in one line the processors' activity between two queries. `host` is their state
/// without a guest.
pub(super) fn describe(first: &[Processor], second: &[Processor], host: &[Processor]) -> String {
    let one = |(number, (before, after)): (usize, (&Processor, &Processor))| {
        let [was, is] = [before, after].map(|processor| processor.whereabouts(host.get(number)));
        let place = match (before.place == after.place, after.halted) {
            (_, true) => String::new(),
            (true, false) => format!(", at the same place ({:#x})", after.place),
            (false, false) => format!(", moving ({:#x}, {:#x})", before.place, after.place),
        };
        let is = if was == is { is.to_owned() } else { format!("{was}, then {is}") };
        format!("processor {number} {is}{place}")
    };
    let texts: Vec<String> = first.iter().zip(second).enumerate().map(one).collect();
    if texts.is_empty() { "the emulator shows no processor".to_owned() } else { texts.join("; ") }
}

/// Messages of a failed kernel. The first line with one of them has the reason.
const LAST_WORDS: [&str; 8] = [
    "BUG: soft lockup",
    "BUG: unable to handle",
    "BUG: kernel NULL pointer",
    "general protection fault",
    "kernel BUG at",
    "double fault",
    "Kernel panic - not syncing",
    "self-detected stall",
];

/// Returns the line of a kernel's console that has the reason for its failure, without its time.
pub(super) fn last_words(console: &str) -> Option<&str> {
    let line = console.lines().find(|line| LAST_WORDS.iter().any(|words| line.contains(words)))?;
    let line = line.trim();
    let text = line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
        .map_or(line, |(_, text)| text);
    Some(text.trim())
}

/// Returns the processor time of a process, if it exists.
pub(super) fn processor_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before may contain any character, including brackets.
    let (_, fields) = stat.rsplit_once(") ")?;
    let ticks = |field: usize| fields.split(' ').nth(field)?.parse::<u64>().ok();
    // SAFETY: the call has no precondition.
    let rate =
        u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).ok().filter(|rate| *rate > 0)?;
    // utime and stime are fields 14 and 15 of proc(5); the state after the name is field 3.
    Some(Duration::from_millis((ticks(11)? + ticks(12)?) * 1000 / rate))
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const REGISTERS: &str = "\nCPU#0\n\
        RAX=ffffffff81a00000 RBX=0000000000000000\n\
        RIP=ffffffff81a0b0cb RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\n\
        GS =0000 ffff8deab7c00000 00000000 00000000\n\
        CR0=80050033 CR2=00007f0000000000 CR3=0000000002610000 CR4=00370ef0\n\
        \nCPU#1\n\
        RIP=0000000000401000 RFL=00000246 [---Z-P-] CPL=3 II=0 A20=1 SMM=0 HLT=0\n\
        GS =0000 0000000000000000 00000000 00000000\n\
        CR0=80050033 CR2=0 CR3=0 CR4=000006f0\n";

    const HOST_GS: u64 = 0xffff_8dea_b7c0_0000;

    /// A processor in its host's kernel.
    const HOST: Processor =
        Processor { place: 0x10, privilege: 0, halted: false, cr4: 7, gs: HOST_GS };

    #[test]
    fn test_processors_are_read_from_the_monitors_text() {
        let processors = Processor::parse_all(REGISTERS);
        let idle = Processor { place: 0xffff_ffff_81a0_b0cb, halted: true, cr4: 0x37_0ef0, ..HOST };
        let program =
            Processor { place: 0x40_1000, privilege: 3, halted: false, cr4: 0x6f0, gs: 0 };
        assert_eq!(processors, [idle, program]);
    }

    #[test]
    fn test_describe_distinguishes_idle_from_guest_and_stalled_from_moving() {
        let say = |first: &Processor, second: &Processor| {
            describe(std::slice::from_ref(first), std::slice::from_ref(second), &[HOST])
        };
        let idle = Processor { halted: true, ..HOST };
        assert_eq!(say(&idle, &idle), "processor 0 idle");
        let elsewhere = Processor { place: 0x20, ..HOST };
        assert_eq!(say(&HOST, &elsewhere), "processor 0 in the host's kernel, moving (0x10, 0x20)");
        let guest = Processor { cr4: 6, ..HOST };
        assert_eq!(
            say(&guest, &guest),
            "processor 0 in a guest's kernel, at the same place (0x10)"
        );
        assert_eq!(say(&guest, &idle), "processor 0 in a guest's kernel, then idle");
        assert_eq!(describe(&[], &[], &[]), "the emulator shows no processor");
    }

    #[test]
    fn test_whereabouts_tell_a_guest_by_its_features_or_its_own_data() {
        let of = |processor: &Processor| processor.whereabouts(Some(&HOST));
        assert_eq!(of(&Processor { cr4: 6, ..HOST }), "in a guest's kernel");
        assert_eq!(of(&Processor { gs: HOST_GS + 0x1000, ..HOST }), "in a guest's kernel");
        assert_eq!(of(&Processor { cr4: 6, gs: 0, privilege: 3, ..HOST }), "in a guest's program");
        assert_eq!(of(&Processor { gs: 0, privilege: 3, ..HOST }), "in a program of the host");
        assert_eq!(HOST.whereabouts(None), "in the host's kernel");
    }

    #[test]
    fn test_last_words_are_the_first_line_that_says_why() {
        let console = "[    1.000000] a warning\n\
            [   30.500000] watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [vcpu0:5]\n\
            [   30.600000] Kernel panic - not syncing: softlockup: hung tasks\n";
        assert_eq!(
            last_words(console),
            Some("watchdog: BUG: soft lockup - CPU#0 stuck for 22s! [vcpu0:5]")
        );
        assert_eq!(
            last_words("Kernel panic - not syncing: x"),
            Some("Kernel panic - not syncing: x")
        );
        assert_eq!(last_words("[    1.000000] a warning\n"), None);
    }

    #[test]
    fn test_processor_time_is_this_processs_own_and_none_for_a_dead_one() {
        assert!(processor_time(std::process::id()).is_some());
        assert_eq!(processor_time(u32::MAX), None);
    }

    /// Answers as the emulator: a greeting, and answers with an event in between.
    fn answer(stream: &UnixStream) -> Option<()> {
        let mut lines = BufReader::new(stream).lines();
        let say = |text: &str| (&mut &*stream).write_all(format!("{text}\r\n").as_bytes()).ok();
        say("{\"QMP\": {}}")?;
        while let Some(Ok(line)) = lines.next() {
            let command: Value = serde_json::from_str(&line).ok()?;
            say("{\"event\": \"RTC_CHANGE\"}")?;
            let text = match command["arguments"]["command-line"].as_str() {
                Some("info registers -a") => REGISTERS,
                _ => "",
            };
            say(&json!({"return": text}).to_string())?;
        }
        Some(())
    }

    #[test]
    fn test_look_returns_all_processors_and_logs_the_answers() {
        let log = std::env::temp_dir().join(format!("synthvm-monitor-{}", std::process::id()));
        let (ours, theirs) = UnixStream::pair().unwrap();
        let emulator = thread::spawn(move || answer(&theirs));
        let mut monitor = Monitor::new(ours, log.clone()).unwrap();
        assert_eq!(monitor.look("first").unwrap().len(), 2);
        assert_eq!(monitor.look("second").unwrap().len(), 2);
        drop(monitor);
        assert_eq!(emulator.join().unwrap(), Some(()));
        let text = fs::read_to_string(&log).unwrap();
        fs::remove_file(&log).unwrap();
        assert!(text.contains("=== first ===") && text.contains("=== second ==="), "{text}");
        assert!(text.contains("RIP=ffffffff81a0b0cb"), "{text}");
    }

    #[test]
    fn test_look_at_an_emulator_that_is_gone_is_an_error_in_the_log() {
        let log = std::env::temp_dir().join(format!("synthvm-monitor-gone-{}", std::process::id()));
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert!(Monitor::new(ours, log.clone()).unwrap().look("first").is_err());
        assert!(fs::read_to_string(&log).unwrap().contains("no answer"));
        fs::remove_file(&log).unwrap();
    }
}
