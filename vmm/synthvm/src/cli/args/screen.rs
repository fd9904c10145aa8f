//! The grammar of the commands for the screen, the keyboard, the pointer and the consoles.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::cli::console::DetachKey;
use crate::display::ButtonName;

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct ScreenshotArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(in crate::cli) socket: PathBuf,
    /// The PNG file, which is created or replaced
    #[arg(value_name = "FILE")]
    pub(in crate::cli) path: PathBuf,
}

const KEYS_EXAMPLES: &str = "\
Keys of a combination are joined by `-`, pressed in their order and released in the reverse order.
Keys are named as on a US keyboard: a to z, 0 to 9, f1 to f15, ctrl, shift, alt, meta, altgr, enter,
esc, tab, space, backspace, minus, insert, delete, home, end, pageup, pagedown, up, down, left,
right, print, pause, menu, kp0 to kp9 and others.

Examples:
  synthvm send-keys vm.sock ctrl-alt-del
  synthvm send-keys vm.sock meta-r down down enter

Exit status 0 if the guest will get the keys, 1 if the machine refused, 2 if the command line is wrong.";

#[derive(Debug, clap::Args)]
#[command(after_help = KEYS_EXAMPLES)]
pub(in crate::cli) struct SendKeysArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(in crate::cli) socket: PathBuf,
    /// Combinations of keys, one after the other: ctrl-alt-del
    #[arg(value_name = "KEYS", required = true)]
    pub(in crate::cli) keys: Vec<String>,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct TypeArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(in crate::cli) socket: PathBuf,
    /// The text: characters of a US keyboard, of which about a thousand fit at once; line feeds are
    /// Enter
    #[arg(value_name = "TEXT", allow_hyphen_values = true)]
    pub(in crate::cli) text: String,
}

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct PointerArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(in crate::cli) socket: PathBuf,
    /// The column of the pixel, from 0
    #[arg(value_name = "X")]
    pub(in crate::cli) x: u32,
    /// The row of the pixel, from 0
    #[arg(value_name = "Y")]
    pub(in crate::cli) y: u32,
    /// Buttons that are pressed from now on, separated by commas [default: none]
    #[arg(long, value_name = "left|right|middle", value_delimiter = ',')]
    pub(in crate::cli) buttons: Vec<ButtonName>,
    /// Steps of the wheel; positive away from the user
    #[arg(long, value_name = "STEPS", default_value_t = 0, allow_negative_numbers = true)]
    pub(in crate::cli) wheel: i16,
}

const CONSOLE_EXAMPLES: &str = "\
Examples:
  The serial console in this terminal; Ctrl-] leaves:
    synthvm console vm.sock
  Screen and serial console in a browser, by the link that is printed:
    synthvm console --web vm.sock
  The same from another machine:
    ssh -L 8006:127.0.0.1:8006 HOST synthvm console --web=127.0.0.1:8006 vm.sock";

#[derive(Debug, clap::Args)]
#[command(after_help = CONSOLE_EXAMPLES)]
pub(in crate::cli) struct ConsoleArgs {
    /// The machine's control socket (its --control)
    #[arg(value_name = "SOCK")]
    pub(in crate::cli) socket: PathBuf,
    /// The serial port: 1 or 2
    #[arg(
        long,
        value_name = "1|2",
        default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(1..=2)
    )]
    pub(in crate::cli) port: u8,
    /// The key that leaves the console: ^A to ^Z, ^[, ^\, ^], ^^, ^_, ^@, or none
    #[arg(long, value_name = "KEY", default_value = "^]")]
    pub(in crate::cli) detach_key: DetachKey,
    /// Serves a page with screen and serial console, prints its link, and runs until the machine
    /// ends or you press Ctrl-C; ADDRESS is a loopback address, port 0 any free port
    #[arg(
        long,
        value_name = "ADDRESS",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "127.0.0.1:0",
        conflicts_with_all = ["port", "detach_key"]
    )]
    pub(in crate::cli) web: Option<SocketAddr>,
    /// Folder with noVNC and xterm.js, in place of those in this program (`cargo xtask
    /// web-libraries` makes one)
    #[arg(long, value_name = "FOLDER", requires = "web")]
    pub(in crate::cli) web_libraries: Option<PathBuf>,
    /// Prints a new link to the page of a machine that has --display web=ADDRESS
    #[arg(long, conflicts_with_all = ["web", "port", "detach_key"])]
    pub(in crate::cli) link: bool,
}
