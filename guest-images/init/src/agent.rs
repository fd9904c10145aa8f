//! The guest's agent: executes requests and answers them.

use std::fs;
use std::time::Duration;

use guest_report::agent::{Action, Event, Reply, Request};
use serde::Serialize;
use serde_json::Value;

use crate::checks::Check;
use crate::port::Port;
use crate::scsi::{self, Data};
use crate::sys::{self, Machine};
use crate::{
    Outcome, blockdev, context, echo, fs_check, input_events, kexec, load, modules, process,
    round_trips, screen, sockets, vmbus,
};

/// The action after the reply has been sent.
enum After {
    Nothing,
    End(Machine),
    Panic,
}

/// Handles requests until the port closes.
pub fn serve(port: &Port) -> Outcome<()> {
    for line in port.lines().map_err(context("the report port"))? {
        let line = line.map_err(context("the report port"))?;
        if line.trim().is_empty() {
            continue;
        }
        let (id, outcome) = match serde_json::from_str::<Request>(&line) {
            Ok(request) => (request.id, perform(port, request.action)),
            Err(error) => (0, Err(format!("this is no request: {error}"))),
        };
        let (reply, after) = match outcome {
            Ok((value, after)) => (Reply { id, ok: true, value, error: None }, after),
            Err(error) => {
                (Reply { id, ok: false, value: Value::Null, error: Some(error) }, After::Nothing)
            }
        };
        port.send(&reply).map_err(context("the report port"))?;
        finish(port, &after)?;
    }
    Ok(())
}

/// Runs the command line's checks one after another and reports each.
pub fn run_checks(port: &Port, checks: &[Check]) -> Outcome<()> {
    if checks.is_empty() {
        return Ok(());
    }
    let (mut passed, mut failed) = (0, 0);
    for check in checks {
        let event = match run_check(port, check) {
            Ok(value) => {
                passed += 1;
                Event::Check { name: check.to_string(), ok: true, value, error: None }
            }
            Err(error) => {
                failed += 1;
                Event::Check {
                    name: check.to_string(),
                    ok: false,
                    value: Value::Null,
                    error: Some(error),
                }
            }
        };
        port.send(&event).map_err(context("the report port"))?;
    }
    port.send(&Event::Done { passed, failed }).map_err(context("the report port"))
}

fn run_check(port: &Port, check: &Check) -> Outcome<Value> {
    let mut last = Value::Null;
    for action in check.actions()? {
        last = match perform(port, action)?.0 {
            Value::Object(output)
                if check.name == "run" && output.get("status") != Some(&0.into()) =>
            {
                return Err(Value::Object(output).to_string());
            }
            value => value,
        };
    }
    Ok(last)
}

fn finish(port: &Port, after: &After) -> Outcome<()> {
    match after {
        After::Nothing => Ok(()),
        After::End(how) => {
            port.drain();
            Err(format!("the machine did not end: {}", sys::end(*how)))
        }
        After::Panic => {
            port.drain();
            fs::write("/proc/sysrq-trigger", "c").map_err(context("/proc/sysrq-trigger"))
        }
    }
}

fn value(of: impl Serialize) -> Outcome<(Value, After)> {
    serde_json::to_value(of).map(|value| (value, After::Nothing)).map_err(|e| e.to_string())
}

fn perform(port: &Port, action: Action) -> Outcome<(Value, After)> {
    match action {
        Action::Ping => value("pong"),
        Action::Vmbus => value(vmbus::state()?),
        Action::Disks { at_least, timeout_s } => {
            value(blockdev::disks(at_least, Duration::from_secs(timeout_s))?)
        }
        Action::Sha256 { path, offset, length, direct } => {
            value(blockdev::sha256(&path, offset, length, direct)?)
        }
        Action::WritePattern(range) => value(blockdev::write_pattern(&range)?),
        Action::VerifyPattern(range) => value(blockdev::verify_pattern(&range)?),
        Action::FsCheck { path, files, file_size } => {
            value(fs_check::run(&path, files, file_size)?)
        }
        Action::Echo => value(echo::run()?),
        Action::RoWrite { path } => value(scsi::refused_write(&path)?),
        Action::SgIo { path, cdb, read, write, timeout_s } => {
            let data = match (read, write) {
                (0, None) => Data::None,
                (read, None) => Data::Read(read),
                (0, Some(write)) => Data::Write(scsi::from_hex(&write)?),
                (_, Some(_)) => return Err("a command reads or writes, not both".to_owned()),
            };
            value(scsi::send(&path, &scsi::from_hex(&cdb)?, data, timeout_s)?)
        }
        Action::ModulesReload { names, times } => value(reload(&names, times)?),
        Action::Clocksource => value(sys::clocksource()),
        Action::Run { argv, timeout_s } => {
            value(process::run(&argv, Duration::from_secs(timeout_s))?)
        }
        Action::RoundTrips { address, count, bytes } => {
            value(round_trips::run(&address, count, bytes)?)
        }
        Action::ReadFile { path } => {
            let bytes = fs::read(&path).map_err(context(&path))?;
            value(String::from_utf8_lossy(&bytes))
        }
        Action::WriteFile { path, text } => value(fs::write(&path, text).map_err(context(&path))?),
        Action::Dmesg { lines } => {
            let log = sys::kernel_log().map_err(context("reading the kernel's log"))?;
            let all: Vec<&str> = log.lines().collect();
            value(&all[all.len().saturating_sub(lines)..])
        }
        Action::Panic => Ok((Value::Null, After::Panic)),
        Action::Kexec { cmdline } => {
            kexec::prepare(&cmdline.unwrap_or_else(sys::cmdline))?;
            Ok((Value::Null, After::End(Machine::Kexec)))
        }
        Action::Reboot => Ok((Value::Null, After::End(Machine::Restart))),
        Action::Poweroff => Ok((Value::Null, After::End(Machine::PowerOff))),
        Action::FsyncLoad(load) => value(load::run(port, &load)?),
        Action::OnlineCpus => {
            value(sys::online_cpus().map_err(context("bringing processors online"))?)
        }
        Action::LoadModule { name, parameters } => {
            value(modules::load(&name, &parameters).map_err(context(&name))?)
        }
        Action::DrawPattern { width, height, seed } => value(screen::draw(width, height, seed)?),
        Action::Animate { scene, width, height, first, frames, interval_us } => {
            let interval = Duration::from_micros(interval_us);
            value(screen::animate(scene, (width, height), first..first + frames, interval)?)
        }
        Action::CloseScreen => {
            screen::close();
            value(())
        }
        Action::OpenInput { names, timeout_s } => {
            value(input_events::open(&names, Duration::from_secs(timeout_s))?)
        }
        Action::ReadInput { count, timeout_s } => {
            value(input_events::read(count, Duration::from_secs(timeout_s))?)
        }
        Action::SocketExchange { port, count, bytes, seed } => {
            value(sockets::exchange(port, count, bytes, seed)?)
        }
        Action::SocketRefused { port } => value(sockets::refused(port)?),
        Action::SocketRoundTrips { port, count, bytes } => {
            value(sockets::round_trips(port, count, bytes)?)
        }
        Action::SocketTransfer { port, direction, count, bytes } => {
            value(sockets::transfer(port, direction, count, bytes)?)
        }
        Action::SocketServe { port } => value(sockets::serve(port)?),
        Action::SocketStop => value(sockets::stop()?),
        Action::CloseInput => {
            input_events::close();
            value(())
        }
        Action::UnloadModule { name } => value(modules::unload(&name).map_err(context(&name))?),
    }
}

fn reload(names: &[String], times: u32) -> Outcome<()> {
    for cycle in 1..=times {
        for name in names.iter().rev() {
            modules::unload(name).map_err(context(format!("cycle {cycle}: unloading {name}")))?;
        }
        for name in names {
            modules::load(name, "").map_err(context(format!("cycle {cycle}: loading {name}")))?;
        }
    }
    Ok(())
}
