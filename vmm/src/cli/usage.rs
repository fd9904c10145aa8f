//! What the grammar refuses, in one line that names the option.

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::exit::{Exit, Failure};
use crate::config::unknown;

/// Prints help or the version if that was asked for, or else says what is wrong.
pub(super) fn report(error: &clap::Error, command: &mut Command) -> Exit {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A reader that closes the pipe early has seen what it wanted.
            let _ = error.print();
            Exit::Success
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            let names = commands(command);
            fail(format!("a command is missing; one of {}; see `synthvm --help`", names.join(", ")))
        }
        _ => fail(explain(error, command)),
    }
}

fn fail(message: String) -> Exit {
    let failure = Failure::text(Exit::Usage, message);
    failure.print();
    failure.exit()
}

fn explain(error: &clap::Error, command: &Command) -> String {
    let asked = asked_command(error, command);
    let help = match asked {
        Some(asked) => format!("see `synthvm {} --help`", asked.get_name()),
        None => "see `synthvm --help`".to_owned(),
    };
    let argument = text(error, ContextKind::InvalidArg);
    match (error.kind(), argument) {
        (ErrorKind::UnknownArgument, Some(name)) if name.starts_with('-') => {
            let name = name.split('=').next().unwrap_or(name).trim();
            let known = options(asked.unwrap_or(command));
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            format!("{}; {help}", unknown("option", name, &known))
        }
        (ErrorKind::UnknownArgument, Some(word)) => format!("`{word}` is one word too many; {help}"),
        (ErrorKind::InvalidSubcommand, _) => {
            let name = text(error, ContextKind::InvalidSubcommand).unwrap_or("?");
            let known = commands(asked.unwrap_or(command));
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            format!("{}; {help}", unknown("command", name, &known))
        }
        (ErrorKind::ArgumentConflict, Some(name)) if text(error, ContextKind::PriorArg) == Some(name) => {
            format!("{} is given twice; {help}", option_name(name))
        }
        (ErrorKind::InvalidValue, Some(name))
            if text(error, ContextKind::InvalidValue).is_none_or(str::is_empty) =>
        {
            format!("{} needs a value; {help}", option_name(name))
        }
        _ => format!("{}; {help}", first_line(error)),
    }
}

/// clap's own words, without the heading and without what follows on further lines.
fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let first = lines.next().unwrap_or("wrong usage").trim_start_matches("error: ").to_owned();
    // "the following required arguments were not provided:" goes on in the next line.
    let rest: Vec<&str> = if first.ends_with(':') { lines.collect() } else { Vec::new() };
    [vec![first.as_str()], rest].concat().join(" ")
}

/// `--memory <SIZE>` without the placeholder.
fn option_name(argument: &str) -> &str {
    argument.split([' ', '=', '[']).next().unwrap_or(argument)
}

/// The subcommand that was being read, as clap's usage line tells.
fn asked_command<'a>(error: &clap::Error, command: &'a Command) -> Option<&'a Command> {
    let usage = error.get(ContextKind::Usage)?.to_string();
    let mut words = usage.split_whitespace().skip_while(|word| !word.ends_with("synthvm")).skip(1);
    command.find_subcommand(words.next()?)
}

fn text(error: &clap::Error, kind: ContextKind) -> Option<&str> {
    match error.get(kind)? {
        ContextValue::String(text) => Some(text),
        _ => None,
    }
}

fn options(command: &Command) -> Vec<String> {
    let names = command.get_arguments().filter_map(|argument| argument.get_long());
    names.map(|name| format!("--{name}")).collect()
}

fn commands(command: &Command) -> Vec<String> {
    command.get_subcommands().map(|command| command.get_name().to_owned()).collect()
}
