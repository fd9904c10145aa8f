//! Weston, a Wayland compositor, for guests with a screen.

use crate::GuestBuilder;

const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";

/// Fonts of the guest.
const FONTS: &str = "<?xml version=\"1.0\"?>\n\
    <!DOCTYPE fontconfig SYSTEM \"fonts.dtd\">\n\
    <fontconfig><dir>/usr/share/fonts</dir><cachedir>/tmp/fontconfig</cachedir></fontconfig>\n";

/// Adds Weston with its desktop and terminal, their data, one font, and the script `/bin/desktop`.
/// The script starts Weston on the first graphics card, without input devices, because a guest has
/// no udev that describes them.
#[must_use]
pub fn add_to(builder: GuestBuilder) -> GuestBuilder {
    let library = |name: &str| format!("{LIBRARIES}/{name}");
    let programs = [
        "usr/bin/weston".to_owned(),
        "usr/bin/weston-terminal".to_owned(),
        library("weston-desktop-shell"),
        library("weston/desktop-shell.so"),
    ];
    let programs = programs.each_ref().map(String::as_str);
    builder
        .package("weston", &programs)
        .package("libweston-10-0", &[&library("libweston-10/drm-backend.so")])
        .data("weston", "usr/share/weston")
        .data("xkb-data", "usr/share/X11/xkb")
        .data("fonts-dejavu-core", "usr/share/fonts/truetype/dejavu")
        .file("etc/fonts/fonts.conf", 0o644, FONTS.into())
        .file("bin/desktop", 0o755, SCRIPT.into())
        .file("etc/weston.ini", 0o644, CONFIGURATION.into())
}

const SCRIPT: &str = "#!/bin/sh\n\
    export XDG_RUNTIME_DIR=/tmp/run HOME=/tmp\n\
    mkdir -p $XDG_RUNTIME_DIR && chmod 700 $XDG_RUNTIME_DIR\n\
    exec weston --backend=drm-backend.so --tty=1 --use-pixman --continue-without-input \
    --config=/etc/weston.ini \"$@\"\n";

const CONFIGURATION: &str = "[core]\nidle-time=0\n\
    [shell]\nbackground-color=0xff0f766e\npanel-color=0xff1b2128\npanel-position=top\n\
    clock-format=none\nanimation=none\nstartup-animation=none\n\
    [terminal]\nfont=DejaVu Sans Mono\nfont-size=14\n";
