//! Named checks: requests of a user or a script on the command line, which consist of the agent's
//! actions.

use guest_report::agent::{Action, PatternRange};

/// A check in the form `name` or `name(argument,argument)`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// The name.
    pub name: String,
    /// The arguments.
    pub arguments: Vec<String>,
}

/// All checks, for the error about an unknown name.
const NAMES: &str = "ping, vmbus, clocksource, cpus, disks(COUNT), sha256(DEVICE), \
    pattern(DEVICE,BYTES), fs(DEVICE), ro(DEVICE), echo, reload(TIMES), run(PROGRAM,ARG..)";

impl Check {
    /// Parses `a,b(x,y),c`.
    pub fn parse_list(text: &str) -> Vec<Check> {
        let mut depth = 0_u32;
        let pieces = text.split(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            c == ',' && depth == 0
        });
        pieces.filter(|piece| !piece.is_empty()).map(Check::parse).collect()
    }

    fn parse(text: &str) -> Check {
        let (name, inside) = text.split_once('(').unwrap_or((text, ""));
        let inside = inside.strip_suffix(')').unwrap_or(inside);
        let arguments =
            inside.split(',').map(|a| a.trim().to_owned()).filter(|a| !a.is_empty()).collect();
        Check { name: name.trim().to_owned(), arguments }
    }

    /// Returns the actions of this check.
    ///
    /// # Errors
    /// The name is unknown, an argument is missing, or an argument is no number.
    pub fn actions(&self) -> Result<Vec<Action>, String> {
        let actions = match self.name.as_str() {
            "ping" => vec![Action::Ping],
            "vmbus" => vec![Action::Vmbus],
            "clocksource" => vec![Action::Clocksource],
            "cpus" => vec![Action::OnlineCpus],
            "disks" => vec![Action::Disks {
                at_least: self.number(0)?.unwrap_or(1) as usize,
                timeout_s: 30,
            }],
            "sha256" => {
                vec![Action::Sha256 { path: self.path()?, offset: 0, length: None, direct: true }]
            }
            "pattern" => {
                let length = self.number(1)?.unwrap_or(1 << 20);
                let range =
                    PatternRange { path: self.path()?, offset: 0, length, seed: 1, direct: true };
                vec![Action::WritePattern(range.clone()), Action::VerifyPattern(range)]
            }
            "fs" => vec![Action::FsCheck { path: self.path()?, files: 20, file_size: 100_000 }],
            "echo" => vec![Action::Echo],
            "ro" => vec![Action::RoWrite { path: self.path()? }],
            "reload" => {
                let times =
                    u32::try_from(self.number(0)?.unwrap_or(1)).map_err(|e| e.to_string())?;
                let names = ["hv_vmbus", "hv_storvsc"].map(str::to_owned).to_vec();
                vec![Action::ModulesReload { names, times }]
            }
            "run" => vec![Action::Run { argv: self.arguments.clone(), timeout_s: 600 }],
            other => return Err(format!("there is no check {other:?}; there are: {NAMES}")),
        };
        Ok(actions)
    }

    fn path(&self) -> Result<String, String> {
        let path = self
            .arguments
            .first()
            .ok_or_else(|| format!("{} needs a device: {}(/dev/sda)", self.name, self.name));
        path.cloned()
    }

    fn number(&self, index: usize) -> Result<Option<u64>, String> {
        let Some(text) = self.arguments.get(index) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| format!("{}: {text:?} is no number", self.name))
    }
}

impl std::fmt::Display for Check {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.arguments.as_slice() {
            [] => f.write_str(&self.name),
            arguments => write!(f, "{}({})", self.name, arguments.join(",")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn test_list_keeps_commas_inside_parentheses() {
        let checks = Check::parse_list("ping,pattern(/dev/sda, 4096),,vmbus");
        let texts: Vec<_> = checks.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["ping", "pattern(/dev/sda,4096)", "vmbus"]);
    }

    #[test]
    fn test_unknown_check_is_answered_with_the_known_ones() {
        let error = Check::parse("fly").actions().unwrap_err();
        assert!(error.contains("fly") && error.contains("sha256(DEVICE)"), "{error}");
    }

    #[test]
    fn test_check_with_a_missing_or_wrong_argument_is_refused() {
        assert!(Check::parse("sha256").actions().is_err());
        assert!(Check::parse("disks(many)").actions().is_err());
        assert!(Check::parse("pattern(/dev/sda,x)").actions().is_err());
    }

    #[test]
    fn test_pattern_check_reads_back_what_it_wrote() {
        let actions = Check::parse("pattern(/dev/sda,8192)").actions().unwrap();
        let [Action::WritePattern(written), Action::VerifyPattern(read)] = actions.as_slice()
        else {
            panic!()
        };
        assert_eq!(written, read);
        assert_eq!(written.length, 8192);
    }
}
