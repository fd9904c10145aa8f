//! Messages for invalid command lines: one line that names the option.

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use super::exit::{Exit, Failure};
use crate::config::unknown;

/// Prints help or the version if the user requested it, or else the error. `words` is the command
/// line without the program's name.
pub(super) fn report(error: &clap::Error, command: &Command, words: &[String]) -> Exit {
    // The first word that is no flag is the command: flags before it take no values.
    let asked = words
        .iter()
        .find(|word| !word.starts_with('-'))
        .and_then(|word| command.find_subcommand(word));
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            // A failed write is ignored: the reader closed the pipe early.
            let _ = error.print();
            Exit::Success
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand | ErrorKind::MissingSubcommand => {
            let names = commands(asked.unwrap_or(command));
            fail(format!("a command is missing; one of {}; {}", names.join(", "), help(asked)))
        }
        _ => fail(explain(error, command, asked)),
    }
}

fn fail(message: String) -> Exit {
    let failure = Failure::text(Exit::Usage, message);
    failure.print();
    failure.exit()
}

fn help(asked: Option<&Command>) -> String {
    match asked {
        Some(asked) => format!("see `synthvm {} --help`", asked.get_name()),
        None => "see `synthvm --help`".to_owned(),
    }
}

fn explain(error: &clap::Error, command: &Command, asked: Option<&Command>) -> String {
    let command = asked.unwrap_or(command);
    let help = help(asked);
    let argument = text(error, ContextKind::InvalidArg);
    match (error.kind(), argument) {
        (ErrorKind::UnknownArgument, Some(name)) if name.starts_with('-') => {
            let name = name.split('=').next().unwrap_or(name).trim();
            let known = options(command);
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            format!("{}; {help}", unknown("option", name, &known))
        }
        (ErrorKind::UnknownArgument, Some(word)) if command.has_subcommands() => {
            format!("{}; {help}", unknown_command(word, command))
        }
        (ErrorKind::UnknownArgument, Some(word)) => {
            format!("`{word}` is one word too many; {help}")
        }
        (ErrorKind::InvalidSubcommand, _) => {
            let name = text(error, ContextKind::InvalidSubcommand).unwrap_or("?");
            format!("{}; {help}", unknown_command(name, command))
        }
        (ErrorKind::ArgumentConflict, Some(name))
            if text(error, ContextKind::PriorArg) == Some(name) =>
        {
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

/// Returns clap's message, without the prefix and without the lines after the first.
fn first_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let mut lines = text.lines().map(str::trim).take_while(|line| !line.is_empty());
    let first = lines.next().unwrap_or("wrong usage").trim_start_matches("error: ").to_owned();
    // "the following required arguments were not provided:" continues on the next lines.
    let rest: Vec<&str> = if first.ends_with(':') { lines.collect() } else { Vec::new() };
    [vec![first.as_str()], rest].concat().join(" ")
}

/// Returns the option's name: `--memory <SIZE>` without the placeholder.
fn option_name(argument: &str) -> &str {
    argument.split([' ', '=', '[']).next().unwrap_or(argument)
}

fn unknown_command(name: &str, command: &Command) -> String {
    let known = commands(command);
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    unknown("command", name, &known)
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
