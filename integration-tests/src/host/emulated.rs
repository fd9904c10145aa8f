//! An emulated host: its start, its commands, and its end.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::{env, thread};

use guest_images::progress::{Task, step};
use guest_report::host::{Event, Frame, Request};

use super::emulator::Emulator;
use super::image::{HostImage, emulator};
use super::monitor::last_words;
use super::silence::Silence;
use super::{
    EMULATED, HostError, HostOptions, INSIDE, OutputSink, RESULTS, START_ATTEMPTS, START_DEADLINE,
    prepare,
};

/// A running emulated host. It ends when this is dropped or this process ends.
#[derive(Debug)]
pub struct EmulatedHost {
    channel: UnixStream,
    frames: Receiver<Frame>,
    emulator: Emulator,
    silence: Silence,
    options: HostOptions,
}

impl EmulatedHost {
    /// Starts a host and waits until it is ready. A failed start is repeated: the emulator has a
    /// known race while a kernel with several processors patches its own text.
    pub fn start(options: &HostOptions) -> Result<EmulatedHost, HostError> {
        let program = emulator()?;
        let image = HostImage::build(&options.kernel)?;
        let mut attempt = 1;
        loop {
            let cpus = options.cpus;
            let processors = if cpus == 1 { "processor" } else { "processors" };
            let task = Task::start(&format!(
                "starting the emulated test host ({} MiB, {cpus} {processors})",
                options.memory_mib
            ));
            match EmulatedHost::start_once(options, &program, &image) {
                Err(HostError::NotStarted { why, .. }) if attempt < START_ATTEMPTS => {
                    drop(task);
                    step(&format!("the test host did not start ({why}); trying again"));
                    attempt += 1;
                }
                Err(HostError::NotStarted { why, console, .. }) => {
                    return Err(HostError::NotStarted { attempts: attempt, why, console });
                }
                Ok((host, kernel)) => {
                    task.finish();
                    step(&format!("the test host is ready: Linux {kernel}, with KVM"));
                    return Ok(host);
                }
                Err(other) => return Err(other),
            }
        }
    }

    /// Starts a host once. Returns it and the release of its kernel.
    fn start_once(
        options: &HostOptions,
        program: &Path,
        image: &HostImage,
    ) -> Result<(EmulatedHost, String), HostError> {
        let (ours, theirs) = UnixStream::pair().map_err(|e| prepare("making a socket", &e))?;
        let (emulator, monitor) = Emulator::spawn(options, program, image, &theirs)?;
        // Only the emulator holds its end now, so its death causes an end of file here.
        drop(theirs);
        let reader = ours.try_clone().map_err(|e| prepare("copying a socket", &e))?;
        let (sender, frames) = mpsc::channel();
        thread::spawn(move || {
            let mut reader = io::BufReader::with_capacity(64 << 10, reader);
            while let Ok(Some(frame)) = Frame::read(&mut reader) {
                if sender.send(frame).is_err() {
                    return;
                }
            }
        });
        let silence = Silence::new(monitor, emulator.pid());
        let mut host =
            EmulatedHost { channel: ours, frames, emulator, silence, options: options.clone() };
        let first = host.frames.recv_timeout(START_DEADLINE);
        let not_started =
            |why: String| HostError::NotStarted { attempts: 1, why, console: host.emulator.lost() };
        match first {
            Ok(Frame::Event(Event::Ready { kvm: true, kernel, .. })) => {
                host.silence.learn();
                Ok((host, kernel))
            }
            Ok(Frame::Event(Event::Ready { kvm: false, .. })) => {
                Err(not_started("it has no /dev/kvm".to_owned()))
            }
            Ok(Frame::Event(Event::Broken { why })) => Err(not_started(why)),
            Ok(frame) => Err(not_started(format!("it said {frame:?}"))),
            Err(RecvTimeoutError::Timeout) => {
                Err(not_started(format!("it was not ready after {} s", START_DEADLINE.as_secs())))
            }
            Err(RecvTimeoutError::Disconnected) => {
                Err(not_started("it died while it started".to_owned()))
            }
        }
    }

    /// Runs one command until it ends. `extra` is added to this process's environment.
    ///
    /// # Errors
    /// [`HostError::Hung`] and [`HostError::Died`] when the host is lost; its logs are kept.
    pub fn run(
        &mut self,
        argv: &[String],
        extra: &[(String, String)],
        sink: &mut dyn OutputSink,
    ) -> Result<i32, HostError> {
        let request = self.request(argv, extra)?;
        if let Err(error) = Frame::Request(request).write(&mut &self.channel) {
            return Err(self.died(&format!("it does not take the command: {error}")));
        }
        self.silence.end();
        loop {
            match self.frames.recv_timeout(self.silence.until_next(&self.options)) {
                Ok(Frame::Stdout(bytes)) => sink.stdout(&bytes),
                Ok(Frame::Stderr(bytes)) => sink.stderr(&bytes),
                Ok(Frame::Event(Event::Exited { code })) => return Ok(code),
                Ok(Frame::Event(Event::NotStarted { why, not_found })) => {
                    return Err(HostError::Command { why, not_found });
                }
                Ok(frame) => return Err(self.died(&format!("it said {frame:?}"))),
                Err(RecvTimeoutError::Timeout) if self.silence.is_over(&self.options) => {
                    return Err(self.hung());
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(finding) = self.silence.look() {
                        sink.stderr(
                            format!("  .. the test host is silent: {finding}\n").as_bytes(),
                        );
                    }
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.died("it closed its channel"));
                }
            }
            self.silence.end();
        }
    }

    fn hung(&self) -> HostError {
        let console = self.emulator.console();
        let finding = self.silence.finding().unwrap_or("its processors were not looked at");
        let why = last_words(&console).unwrap_or(finding).to_owned();
        let seconds = self.options.quiet_limit.as_secs();
        HostError::Hung { seconds, why, console: self.emulator.lost() }
    }

    /// Returns the error of a dead host. A lost kernel ends the emulator immediately, and its last
    /// words explain more than the emulator's status.
    fn died(&mut self, seen: &str) -> HostError {
        let ended = self.emulator.end();
        let console = self.emulator.console();
        let why = match (last_words(&console), ended) {
            (Some(words), _) => words.to_owned(),
            (None, Some(status)) => format!("{seen}; the emulator ended with {status}"),
            (None, None) => seen.to_owned(),
        };
        HostError::Died { why, console: self.emulator.lost() }
    }

    fn request(&self, argv: &[String], extra: &[(String, String)]) -> Result<Request, HostError> {
        let dir = env::current_dir().map_err(|e| prepare("finding the current directory", &e))?;
        let mut environment: Vec<(String, String)> = env::vars_os()
            .filter_map(|(key, value)| Some((key.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        environment.push((RESULTS.to_owned(), self.options.results.display().to_string()));
        environment.push((INSIDE.to_owned(), EMULATED.to_owned()));
        environment.extend_from_slice(extra);
        Ok(Request { argv: argv.to_vec(), env: environment, dir: dir.display().to_string() })
    }
}
