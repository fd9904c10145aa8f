//! The distribution's package manager, used with private folders: any suite can be read, and
//! nothing is added to the user's system. The mirrors are those in the system's own configuration.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use crate::logged::{self, Line};
use crate::progress::Task;
use crate::{Error, cache::Cache};

/// Lists younger than this are used unchanged; a failed download refreshes them in any case.
const LISTS_FRESH: Duration = Duration::from_secs(6 * 3600);

/// The paths of the keys that sign the distribution's archives.
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// Suites of the distribution, which identify its mirrors among the system's sources.
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

/// A suite of the distribution, accessed through apt with a private state folder.
#[derive(Debug)]
pub struct Apt {
    cache: Cache,
    suite: String,
    dir: PathBuf,
    conf: PathBuf,
}

/// The archive's record of a package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// The package's name.
    pub name: String,
    /// The version, with its epoch.
    pub version: String,
    /// SHA-256 of the archive file, in hexadecimal.
    pub sha256: String,
    /// Bytes of the archive file.
    pub size: u64,
    /// The first alternative of each name in Depends and Pre-Depends.
    pub depends: Vec<String>,
}

impl Apt {
    /// Prepares the private folders of one suite, such as `bookworm`.
    ///
    /// # Errors
    /// The system's apt names no mirror of the distribution, or its keyring is missing.
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
        Ok(Apt { cache: cache.clone(), suite: suite.to_owned(), dir, conf })
    }

    /// Fetches the suite's package lists, unless they are recent and `force` is false.
    pub fn update(&self, force: bool) -> Result<(), Error> {
        let stamp = self.dir.join("updated");
        let age = fs::metadata(&stamp)
            .and_then(|m| m.modified())
            .map(|t| SystemTime::now().duration_since(t));
        if !force && matches!(age, Ok(Ok(age)) if age < LISTS_FRESH) {
            return Ok(());
        }
        let doing = format!("reading the package lists of {}", self.suite);
        let task = Task::start(&doing);
        let mut command = self.command("apt-get");
        command.args(["-q", "update"]);
        self.run(&mut command, &doing, &task)?;
        task.finish();
        fs::write(&stamp, b"").map_err(Error::file("writing", &stamp))
    }

    /// Returns the archive's record of the newest version of each package. Packages that the suite
    /// does not have are omitted, including virtual ones.
    ///
    /// # Errors
    /// `apt-cache` cannot be started.
    pub fn show(&self, packages: &[&str]) -> Result<Vec<Control>, Error> {
        let mut command = self.command("apt-cache");
        command.args(["show", "--no-all-versions"]).args(packages).stderr(Stdio::null());
        let output = command
            .output()
            .map_err(|source| Error::Start { program: "apt-cache".to_owned(), source })?;
        Ok(parse_controls(&String::from_utf8_lossy(&output.stdout)))
    }

    /// Downloads package files into an empty folder, and returns their paths in the same order. apt
    /// checks their checksums; the caller must check them again.
    ///
    /// # Errors
    /// The archive cannot be reached, or no longer has a file.
    pub fn download(
        &self,
        packages: &[Control],
        into: &Path,
        task: &Task,
    ) -> Result<Vec<PathBuf>, Error> {
        let mut command = self.command("apt-get");
        command
            .args(["-q", "download"])
            .args(packages.iter().map(|control| format!("{}={}", control.name, control.version)))
            .current_dir(into);
        self.run(&mut command, "downloading packages", task)?;
        let entries = fs::read_dir(into).map_err(Error::file("reading folder", into))?;
        let files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        let file_of = |control: &Control| {
            let start = format!("{}_", control.name);
            let found = files.iter().find(|path| {
                let name = path.file_name().unwrap_or_default().to_string_lossy();
                name.starts_with(&start) && name.ends_with(".deb")
            });
            found.cloned().ok_or_else(|| {
                Error::Unusable(format!(
                    "apt-get download left no package file for {}",
                    control.name
                ))
            })
        };
        packages.iter().map(file_of).collect()
    }

    /// Runs apt. Its output goes to the log, its progress to `task`.
    fn run(&self, command: &mut Command, doing: &str, task: &Task) -> Result<(), Error> {
        // The progress in a machine-readable form, on standard output.
        command.args(["-o", "APT::Status-Fd=1"]);
        logged::run(&self.cache, command, doing, |line| match fetched_per_cent(line) {
            Some(per_cent) => {
                task.set(per_cent, DOWNLOAD_UNITS);
                Line::Drop
            }
            None => Line::Keep,
        })
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .arg("-c")
            .arg(&self.conf)
            .env("LC_ALL", "C")
            .env("DEBIAN_FRONTEND", "noninteractive");
        command
    }
}

/// Units of a download's bar: apt reports a percentage.
const DOWNLOAD_UNITS: u64 = 100;

/// Parses apt's progress: `dlstatus:3:27.6116:Retrieving file 3 of 5`, where the third field is the
/// percentage.
fn fetched_per_cent(line: &str) -> Option<u64> {
    let per_cent = line.strip_prefix("dlstatus:")?.split(':').nth(1)?;
    per_cent.split('.').next()?.parse().ok()
}

/// Returns the options that confine apt to the private folder. `#clear` drops the hooks of the
/// system's configuration, which would act on the system's own folders; all other settings (such as
/// proxies) apply.
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

/// Returns the sources list of a suite, with the mirrors of the system.
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
            "the distribution's keyring is missing: install the package debian-archive-keyring"
                .to_owned(),
        ));
    };
    sources_from(&String::from_utf8_lossy(&output.stdout), suite, keyring).ok_or_else(|| {
        Error::Unusable(
            "this system's apt names no Debian mirror: run this on Debian, or name a kernel and \
            its modules yourself"
                .to_owned(),
        )
    })
}

/// Returns the list for [`sources`] without accessing the system: `targets` has lines of site,
/// release and component.
fn sources_from(targets: &str, suite: &str, keyring: &str) -> Option<String> {
    let mut main = None;
    let mut security = None;
    for line in targets.lines() {
        let mut words = line.split_whitespace();
        let (Some(site), Some(release), Some("main")) = (words.next(), words.next(), words.next())
        else {
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

/// Splits `bookworm-security`, or the older style `buster/updates`, into suite and part.
fn split_release(release: &str) -> (&str, &str) {
    release.split_once('-').unwrap_or((release, ""))
}

/// Parses the paragraphs of `apt-cache show`.
fn parse_controls(text: &str) -> Vec<Control> {
    text.split("\n\n").filter_map(parse_control).collect()
}

fn parse_control(paragraph: &str) -> Option<Control> {
    let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
    for line in paragraph.lines() {
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
        size: fields.get("Size")?.parse().ok()?,
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
        let text = "Package: a\nVersion: 1:2-3\nDepends: b (= 1), c:any | d, e [amd64]\n\
            Pre-Depends: f\n\
                    Description: x\n y: z\nSize: 12\nSHA256: 00ff\n";
        let control = parse_control(text).unwrap();
        assert_eq!(control.name, "a");
        assert_eq!(control.version, "1:2-3");
        assert_eq!(control.depends, ["f", "b", "c", "e"]);
        assert_eq!((control.sha256.as_str(), control.size), ("00ff", 12));
    }

    #[test]
    fn test_controls_of_several_packages_are_all_read() {
        let one = |name: &str| format!("Package: {name}\nVersion: 1\nSize: 1\nSHA256: 00\n\n");
        let names: Vec<String> = parse_controls(&(one("a") + &one("b")))
            .into_iter()
            .map(|control| control.name)
            .collect();
        assert_eq!(names, ["a", "b"]);
        assert_eq!(parse_controls(""), []);
    }

    #[test]
    fn test_progress_of_a_download_is_read_from_its_status_lines_only() {
        assert_eq!(fetched_per_cent("dlstatus:3:27.6116:Retrieving file 3 of 5"), Some(27));
        for other in ["Get:3 mirror://a bookworm", "dlstatus:", "dlstatus:1:x:y", ""] {
            assert_eq!(fetched_per_cent(other), None, "{other}");
        }
    }
}
