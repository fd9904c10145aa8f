//! A machine for the page: a real display server, a serial port that echoes, and recorded buttons.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard};

use synthvm_display::{DisplayServer, Security};
use synthvm_web_console::{Action, Description, Drive};

use crate::guest::Guest;

/// What the serial port has printed before anyone looked.
const BOOT: &str = "\x1b[0m[    0.000000] Linux version 6.12.48+deb13-amd64\r\n\
    [    0.000000] Hypervisor detected: Microsoft Hyper-V\r\n\
    [    0.412038] hv_vmbus: Vmbus version:5.3\r\n\
    [    0.498812] hv_storvsc: registering driver hv_storvsc\r\n\
    [    0.531177] sd 0:0:0:0: [sda] Attached SCSI disk\r\n\
    [    0.602341] hyperv_drm: initialized 1024x768\r\n\
    [ \x1b[32m OK \x1b[0m ] Started \x1b[1mOpenBSD Secure Shell server\x1b[0m.\r\n\
    [ \x1b[32m OK \x1b[0m ] Reached target \x1b[1mMulti-User System\x1b[0m.\r\n\
    \r\nDebian GNU/Linux 13 debian ttyS0\r\n\r\ndebian login: ";

pub(crate) struct Machine {
    display: DisplayServer,
    state: Mutex<State>,
}

struct State {
    done: Vec<Action>,
    word: &'static str,
    disc: Option<String>,
    ended: bool,
}

impl Machine {
    pub(crate) fn new(display: DisplayServer) -> Self {
        let state = State { done: Vec::new(), word: "running", disc: None, ended: false };
        Machine { display, state: Mutex::new(state) }
    }

    /// Returns all actions so far.
    pub(crate) fn done(&self) -> Vec<Action> {
        self.state().done.clone()
    }

    /// Ends the machine.
    pub(crate) fn end(&self) {
        self.state().ended = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl synthvm_web_console::Machine for Machine {
    fn describe(&self) -> Result<Description, String> {
        let state = self.state();
        if state.ended {
            return Err("the machine has ended".to_owned());
        }
        Ok(Description {
            name: "debian".to_owned(),
            state: state.word.to_owned(),
            screen: true,
            actions: vec!["power-button", "reset", "stop", "pause", "resume", "insert-disc"],
            drives: vec![Drive { id: "dvd".to_owned(), disc: state.disc.clone() }],
        })
    }

    fn perform(&self, action: &Action) -> Result<(), String> {
        let mut state = self.state();
        match action {
            Action::Pause {} => state.word = "paused",
            Action::Resume {} => state.word = "running",
            Action::InsertDisc { path, .. } => state.disc = Some(path.display().to_string()),
            _ => {}
        }
        state.done.push(action.clone());
        Ok(())
    }

    fn open_screen(&self) -> Result<UnixStream, String> {
        let (ours, theirs) = UnixStream::pair().unwrap();
        self.display.add_viewer(theirs, Security::none());
        Ok(ours)
    }

    fn open_serial(&self) -> Result<UnixStream, String> {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        std::thread::spawn(move || {
            let _ = theirs.write_all(BOOT.as_bytes());
            let mut buffer = [0; 100];
            while let Ok(length @ 1..) = theirs.read(&mut buffer) {
                let _ = theirs.write_all(&buffer[..length]);
            }
        });
        Ok(ours)
    }
}

/// Returns the status of the answer to a request.
pub(crate) fn get(address: SocketAddr, path: &str, headers: &str) -> u16 {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).unwrap();
    let mut status = [0; 12];
    stream.read_exact(&mut status).unwrap();
    std::str::from_utf8(&status[9..]).unwrap().parse().unwrap()
}

/// Draws a picture that a user would see: a background, a bar, and two windows.
pub(crate) fn draw_desktop(guest: &mut Guest) {
    let (width, height) = (guest.width, guest.height);
    guest.fill(0, 0, width, height, |_, column, row| {
        let shade = |low: usize, high: usize, part: usize, whole: usize| {
            (low * (whole - part) + high * part) / whole
        };
        let red = shade(16, 88, column, width);
        let green = shade(94, 58, row, height);
        let blue = shade(110, 150, column + row, width + height);
        (red << 16 | green << 8 | blue) as u32
    });
    guest.fill(0, 0, width, 28, |_, _, _| 0x0014_1A21);
    for (x, y, wide, high, bar) in
        [(150, 120, 470, 330, 0x0037_4151), (430, 300, 460, 340, 0x000F_766E)]
    {
        guest.fill(x + 6, y + 8, wide, high, |_, _, _| 0x0012_2B3A);
        guest.fill(x, y, wide, high, |_, _, _| 0x00F3_F5F7);
        guest.fill(x, y, wide, 30, |_, _, _| bar);
        for line in 0..9 {
            let length = 120 + (line * 97 + x) % (wide - 170);
            guest.fill(x + 22, y + 52 + line * 28, length, 8, |_, _, _| 0x00B6_C0CB);
        }
    }
    guest.report(0, 0, width, height);
}
