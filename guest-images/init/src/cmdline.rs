//! The guest's words on the kernel's command line; all start with `synthvm.`.

use crate::checks::Check;

/// The options on the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// `synthvm.shell`: run an interactive shell on the console.
    pub shell: bool,
    /// `synthvm.agent`: handle requests on the report port.
    pub agent: bool,
    /// `synthvm.checks=a,b(x)`: run these, then power off.
    pub checks: Vec<Check>,
    /// `synthvm.modules=a,b`: load these instead of the builder's choice; `none` loads none.
    pub modules: Option<Vec<String>>,
    /// `synthvm.report=DEVICE`: the report port.
    pub report: Option<String>,
    /// Words that start with `synthvm.` but are unknown.
    pub unknown: Vec<String>,
}

impl CommandLine {
    /// Parses a command line.
    pub fn parse(text: &str) -> CommandLine {
        let mut found = CommandLine::default();
        for word in text.split_whitespace().filter_map(|word| word.strip_prefix("synthvm.")) {
            match word.split_once('=') {
                None if word == "shell" => found.shell = true,
                None if word == "agent" => found.agent = true,
                Some(("checks", list)) => found.checks = Check::parse_list(list),
                Some(("modules", "none")) => found.modules = Some(Vec::new()),
                Some(("modules", list)) => {
                    found.modules = Some(list.split(',').map(str::to_owned).collect());
                }
                Some(("report", path)) => found.report = Some(path.to_owned()),
                _ => found.unknown.push(word.to_owned()),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_command_line_takes_only_our_words() {
        let line = CommandLine::parse(
            "console=ttyS0 quiet synthvm.agent synthvm.modules=hv_vmbus,sd_mod agent",
        );
        assert!(line.agent && !line.shell);
        assert_eq!(line.modules, Some(vec!["hv_vmbus".to_owned(), "sd_mod".to_owned()]));
        assert!(line.unknown.is_empty());
    }

    #[test]
    fn test_command_line_with_a_word_misspelt_tells() {
        assert_eq!(CommandLine::parse("synthvm.agnet synthvm.shell").unknown, ["agnet"]);
    }

    #[test]
    fn test_command_line_without_modules_differs_from_none() {
        assert_eq!(CommandLine::parse("").modules, None);
        assert_eq!(CommandLine::parse("synthvm.modules=none").modules, Some(vec![]));
    }
}
