//! The distribution's package manager, used with folders of our own: any suite can be read, and nothing is added to the
//! user's system. The mirrors are those that the system's own configuration names.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::progress::step;
use crate::{Error, cache::Cache};

/// Lists younger than this are taken as they are; a download that fails refreshes them anyway.
const LISTS_FRESH: Duration = Duration::from_secs(6 * 3600);

/// Where the distribution keeps the keys that its archives are signed with.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// Suites of the distribution by which we recognise its mirrors among the system's sources.
const SUITES: [&str; 11] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
    "experimental",
];

/// One suite of the distribution, reached through apt with a private state folder.
#[derive(Debug)]
pub struct Apt {
    suite: String,
    dir: PathBuf,
    conf: PathBuf,
}

/// What the archive says about one package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Package name.
    pub name: String,
    /// Version, with epoch.
    pub version: String,
    /// SHA-256 of the archive file, in hexadecimal.
    pub sha256: String,
    /// The first alternative of each name in Depends and Pre-Depends.
    pub depends: Vec<String>,
}

impl Apt {
    /// Prepares the private folders of one suite, such as `bookworm`.
    ///
    /// # Errors
    /// When the system's apt names no mirror of the distribution, or its keyring is missing.
    pub fn new(cache: &Cache, suite: &str) -> Result<Apt, Error> {
        let dir = cache.dir(&format!("apt/{suite}"))?;
        for sub in ["state/lists/partial", "cache/archives/partial"] {
            let path = dir.join(sub);
            fs::create_dir_all(&path).map_err(Error::file("making folder", &path))?;
        }
        let conf = dir.join("apt.conf");
        cache.write(&dir.join("state/status"), b"")?;
        cache.write(&dir.join("sources.list"), sources(suite)?.as_bytes())?;
        cache.write(&conf, configuration(&dir).as_bytes())?;
        Ok(Apt { suite: suite.to_owned(), dir, conf })
    }

    /// Fetches the suite's package lists, unless they are fresh and `force` is false.
    pub fn update(&self, force: bool) -> Result<(), Error> {
        let stamp = self.dir.join("updated");
        let age =
            fs::metadata(&stamp).and_then(|m| m.modified()).map(|t| SystemTime::now().duration_since(t));
        if !force && matches!(age, Ok(Ok(age)) if age < LISTS_FRESH) {
            return Ok(());
        }
        step(&format!("reading the package lists of {}", self.suite));
        let mut command = self.command("apt-get");
        command.args(["-q", "update"]);
        run(&mut command, &format!("reading the package lists of {}", self.suite))?;
        fs::write(&stamp, b"").map_err(Error::file("writing", &stamp))
    }

    /// What the archive says about the newest version of a package; `None` when the suite has no such package.
    pub fn show(&self, package: &str) -> Result<Option<Control>, Error> {
        let mut command = self.command("apt-cache");
        command.args(["show", "--no-all-versions", package]).stderr(Stdio::null());
        let output =
            command.output().map_err(|source| Error::Start { program: "apt-cache".to_owned(), source })?;
        Ok(parse_control(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Downloads one package file into an empty folder, and returns the file's path. Its checksum is checked by apt and
    /// is for the caller to check again.
    pub fn download(&self, control: &Control, into: &Path) -> Result<PathBuf, Error> {
        step(&format!("downloading {} {} from {}", control.name, control.version, self.suite));
        let mut command = self.command("apt-get");
        command
            .args(["-q", "download"])
            .arg(format!("{}={}", control.name, control.version))
            .current_dir(into);
        run(&mut command, &format!("downloading {}", control.name))?;
        let entries = fs::read_dir(into).map_err(Error::file("reading folder", into))?;
        entries
            .flatten()
            .map(|entry| entry.path())
            .find(|path| path.extension().is_some_and(|e| e == "deb"))
            .ok_or_else(|| {
                Error::Unusable(format!("apt-get download left no package file for {}", control.name))
            })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg("-c").arg(&self.conf).env("LC_ALL", "C").env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

/// Runs a program to its end with all that it says on stderr.
pub(crate) fn run(command: &mut Command, doing: &str) -> Result<(), Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(|source| Error::Start { program: program.clone(), source })?;
    if status.success() {
        return Ok(());
    }
    Err(Error::Program { program, status: status.to_string(), doing: doing.to_owned() })
}

/// The options that keep apt inside our folder. `#clear` drops the hooks of the system's configuration, which would act
/// on the system's own folders; everything else there (proxies, for one) stays in force.
fn configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "#clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n\
         #clear APT::Update::Pre-Invoke;\n\
         Dir::State \"{dir}/state\";\n\
         Dir::State::status \"{dir}/state/status\";\n\
         Dir::Cache \"{dir}/cache\";\n\
         Dir::Etc::SourceList \"{dir}/sources.list\";\n\
         Dir::Etc::SourceParts \"/dev/null\";\n\
         Dir::Etc::Preferences \"/dev/null\";\n\
         Dir::Etc::PreferencesParts \"/dev/null\";\n\
         APT::Architecture \"amd64\";\n\
         APT::Sandbox::User \"root\";\n\
         APT::Update::Error-Mode \"any\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::Retries \"3\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n"
    )
}

/// The sources list of one suite, made from the mirrors that the system itself uses.
fn sources(suite: &str) -> Result<String, Error> {
    let output = Command::new("apt-get")
        .args([
            "indextargets",
            "--no-release-info",
            "--format",
            "$(SITE) $(RELEASE) $(COMPONENT)",
            "Identifier: Packages",
        ])
        .env("LC_ALL", "C")
        .stderr(Stdio::null())
        .output()
        .map_err(|source| Error::Start { program: "apt-get".to_owned(), source })?;
    let Some(keyring) = KEYRINGS.iter().find(|path| Path::new(path).exists()) else {
        return Err(Error::Unusable(
            "the distribution's keyring is missing: install the package debian-archive-keyring".to_owned(),
        ));
    };
    sources_from(&String::from_utf8_lossy(&output.stdout), suite, keyring).ok_or_else(|| {
        Error::Unusable(
            "this system's apt names no Debian mirror: run this on Debian, or name a kernel and its modules yourself"
                .to_owned(),
        )
    })
}

/// The part of [`sources`] that does not ask the system: `targets` holds lines of site, release and component.
fn sources_from(targets: &str, suite: &str, keyring: &str) -> Option<String> {
    let mut main = None;
    let mut security = None;
    for line in targets.lines() {
        let mut words = line.split_whitespace();
        let (Some(site), Some(release), Some("main")) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let (base, part) = split_release(release);
        if !SUITES.contains(&base) {
            continue;
        }
        match part {
            "" | "updates" | "backports" => main.get_or_insert(site),
            "security" => security.get_or_insert(site),
            _ => continue,
        };
    }
    let main = main?;
    let mut list = String::new();
    let mut line = |site: &str, suite: &str| {
        let _ = writeln!(list, "deb [arch=amd64 signed-by={keyring}] {site} {suite} main");
    };
    line(main, suite);
    // The rolling suites have neither of the two.
    if !matches!(suite, "sid" | "unstable" | "experimental") && !suite.contains('-') {
        line(main, &format!("{suite}-updates"));
        if let Some(security) = security {
            line(security, &format!("{suite}-security"));
        }
    }
    Some(list)
}

/// `bookworm-security` and the older `buster/updates` style into suite and part.
fn split_release(release: &str) -> (&str, &str) {
    release.split_once('-').unwrap_or((release, ""))
}

/// The first paragraph of `apt-cache show`.
fn parse_control(text: &str) -> Option<Control> {
    let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
    for line in text.lines() {
        if line.is_empty() {
            break;
        }
        if let Some((key, value)) = line.split_once(':').filter(|_| !line.starts_with(' ')) {
            fields.insert(key, value.trim());
        }
    }
    let mut depends = Vec::new();
    for key in ["Pre-Depends", "Depends"] {
        for clause in fields.get(key).copied().unwrap_or_default().split(',') {
            let first = clause.split('|').next().unwrap_or_default();
            let name = first.split(['(', '[', ':']).next().unwrap_or_default().trim();
            if !name.is_empty() {
                depends.push(name.to_owned());
            }
        }
    }
    Some(Control {
        name: (*fields.get("Package")?).to_owned(),
        version: (*fields.get("Version")?).to_owned(),
        sha256: (*fields.get("SHA256")?).to_owned(),
        depends,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "tool://other nodistro main\n\
        mirror://a/debian bookworm main\n\
        mirror://a/debian bookworm-updates main\n\
        mirror://b/security bookworm-security main\n";

    #[test]
    fn test_sources_for_another_suite_use_the_systems_mirrors() {
        let list = sources_from(TARGETS, "trixie", "/k").unwrap();
        assert_eq!(
            list,
            "deb [arch=amd64 signed-by=/k] mirror://a/debian trixie main\n\
             deb [arch=amd64 signed-by=/k] mirror://a/debian trixie-updates main\n\
             deb [arch=amd64 signed-by=/k] mirror://b/security trixie-security main\n"
        );
    }

    #[test]
    fn test_sources_for_sid_have_no_security_part() {
        let list = sources_from(TARGETS, "sid", "/k").unwrap();
        assert_eq!(list, "deb [arch=amd64 signed-by=/k] mirror://a/debian sid main\n");
    }

    #[test]
    fn test_sources_without_a_mirror_of_the_distribution_are_refused() {
        assert_eq!(sources_from("tool://other jammy main\n", "bookworm", "/k"), None);
        assert_eq!(sources_from("", "bookworm", "/k"), None);
    }

    #[test]
    fn test_control_keeps_the_first_alternative_of_each_dependency() {
        let text = "Package: a\nVersion: 1:2-3\nDepends: b (= 1), c:any | d, e [amd64]\nPre-Depends: f\n\
                    Description: x\n y: z\nSHA256: 00ff\n\nPackage: older\n";
        let control = parse_control(text).unwrap();
        assert_eq!(control.name, "a");
        assert_eq!(control.version, "1:2-3");
        assert_eq!(control.depends, ["f", "b", "c", "e"]);
        assert_eq!(control.sha256, "00ff");
    }

    #[test]
    fn test_control_of_an_unknown_package_is_none() {
        assert_eq!(parse_control(""), None);
    }
}
