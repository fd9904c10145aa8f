//! Boots a kernel without a bus: `boot KERNEL [key=value ...]`, keys as in a VM file. For work on the machine itself.

use synthvm::config::VmConfig;
use synthvm::machine::{Exit, Machine};

fn main() {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let mut args = std::env::args().skip(1);
    let mut text = format!("kernel = {:?}\n", args.next().expect("a kernel"));
    for arg in args {
        text.push_str(&arg);
        text.push('\n');
    }
    let config: VmConfig = toml::from_str(&text).expect("a configuration");
    let started = std::time::Instant::now();
    let machine = match Machine::build(&config) {
        Ok(machine) => machine,
        Err(error) => {
            eprintln!("error: {error}");
            std::process::exit(2);
        }
    };
    eprintln!("built in {:?}", started.elapsed());
    let handle = machine.handle();
    // Presses the power button when a file appears, so that a script can do it.
    let button = handle.clone();
    std::thread::spawn(move || {
        let path = std::path::Path::new("/tmp/power-button");
        while !path.exists() {
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        button.power_button();
    });
    let exit = machine.run();
    for (index, exits) in handle.vcpu_exits().iter().enumerate() {
        eprintln!("vCPU {index}: {exits:?}");
    }
    eprintln!("{}", rss());
    eprintln!("exit: {exit:?}");
    std::process::exit(match exit {
        Exit::PowerOff => 0,
        _ => 1,
    });
}

fn rss() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().filter(|line| line.starts_with("Rss")).collect::<Vec<_>>().join(" ")
}
