//! The report for people: tables no wider than 100 columns for ordinary numbers.

use std::time::Duration;

use synthvm_storvsp::UnitKind;

use super::rates::{Rates, bytes, short};
use super::table::printable;
use super::{Align, ChannelReport, InspectReport, RingReport, Table};
use super::{render_display, render_memory, render_network, render_services, render_vsock};

const L: Align = Align::Left;
const R: Align = Align::Right;

/// Number of characters of an occupancy bar.
const BAR: usize = 10;

/// The style of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Text only.
    Plain,
    /// Headings in bold, for a terminal.
    Terminal,
}

impl Style {
    fn heading(self, text: &str) -> String {
        match self {
            Style::Plain => text.to_owned(),
            Style::Terminal => format!("\x1b[1m{text}\x1b[0m"),
        }
    }
}

/// Writes `now` as tables. With an earlier report and the time between both, important counters
/// have a rate.
pub fn render(
    now: &InspectReport,
    before: Option<(&InspectReport, Duration)>,
    style: Style,
) -> String {
    let rates = Rates::over(before.map(|(_, elapsed)| elapsed));
    let empty = InspectReport::default();
    let before = before.map_or(&empty, |(report, _)| report);
    let mut text = Text { lines: Vec::new(), style };
    machine(&mut text, now);
    vcpus(&mut text, now, before, &rates);
    channels(&mut text, now, before, &rates);
    rings(&mut text, now);
    workers(&mut text, now);
    gpadls(&mut text, now);
    disks(&mut text, now, before, &rates);
    limits(&mut text, now);
    networks(&mut text, now, before, &rates);
    let tables = [
        ("Dynamic memory", render_memory::memory(now)),
        ("Screen", render_display::screen(now)),
        ("Viewers", render_display::viewers(now)),
        ("Input", render_display::input(now)),
        ("Sockets", render_vsock::vsock(now)),
        ("Services", render_services::services(now)),
    ];
    for (title, table) in tables {
        if let Some(table) = table {
            text.section(title, &table);
        }
    }
    text.lines.join("\n") + "\n"
}

struct Text {
    lines: Vec<String>,
    style: Style,
}

impl Text {
    fn section(&mut self, title: &str, table: &Table) {
        self.lines.push(String::new());
        self.lines.push(self.style.heading(title));
        self.lines.extend(table.lines());
    }
}

fn machine(text: &mut Text, now: &InspectReport) {
    let (machine, messages) = (&now.machine, &now.messages);
    let uptime = Duration::from_millis(machine.uptime_ms).as_secs();
    let version = now
        .connection
        .version
        .as_deref()
        .map(|version| format!(", version {}", printable(version)));
    let state = serde_json::to_value(now.connection.state).ok();
    let state = state.as_ref().and_then(|state| state.as_str()).unwrap_or("?");
    text.lines.push(text.style.heading(&format!("VMBus {state}{}", version.unwrap_or_default())));
    text.lines.push(format!(
        "  pid {}, up {}:{:02}:{:02}, memory {}, resets {}",
        machine.pid,
        uptime / 3600,
        uptime / 60 % 60,
        uptime % 60,
        bytes(machine.memory_bytes),
        machine.resets,
    ));
    text.lines.push(format!(
        "  messages: {} received, {} sent, {} refused",
        messages.received, messages.sent, messages.refused
    ));
    if machine.leaked_bytes != 0 {
        let leaked = bytes(machine.leaked_bytes);
        text.lines.push(format!("  the host refused to unmap {leaked} of address space"));
    }
    if let Some(tpm) = &now.tpm {
        let failure = tpm.failure.as_deref().map(|why| format!(": {}", printable(why)));
        text.lines.push(format!(
            "  TPM {}, {} commands{}",
            printable(&tpm.state),
            tpm.commands,
            failure.unwrap_or_default()
        ));
    }
    if let Some(panic) = &now.panic {
        let parameters = panic.parameters.map(|parameter| format!("{parameter:#x}")).join(" ");
        text.lines.push(format!("  guest panicked: {parameters}"));
        text.lines.extend(panic.message.iter().map(|message| format!("  {}", printable(message))));
    }
}

fn vcpus(text: &mut Text, now: &InspectReport, before: &InspectReport, rates: &Rates) {
    let mut table = Table::new(&[
        ("VCPU", R),
        ("POST_MESSAGE", R),
        ("SIGNAL_EVENT", R),
        ("IO", R),
        ("MMIO", R),
        ("MSR", R),
        ("OTHER", R),
        (if rates.known() { "EXITS/S" } else { "" }, R),
    ]);
    for vcpu in &now.vcpus {
        let exits = vcpu.exits;
        let counts =
            [exits.post_message, exits.signal_event, exits.io, exits.mmio, exits.msr, exits.other];
        let earlier = before.vcpus.iter().find(|other| other.index == vcpu.index);
        let rate = rates.per_second(exits.total(), earlier.map_or(0, |vcpu| vcpu.exits.total()));
        let cells =
            std::iter::once(vcpu.index.to_string()).chain(counts.map(|count| count.to_string()));
        table.row(cells.chain(rate.map(short)));
    }
    text.section("Exits to user space", &table);
}

fn channels(text: &mut Text, now: &InspectReport, before: &InspectReport, rates: &Rates) {
    let rate_name = if rates.known() { "SENT/S" } else { "" };
    let mut table = Table::new(&[
        ("RELID", R),
        ("CLASS", L),
        ("INSTANCE", L),
        ("STATE", L),
        ("VP", R),
        ("SENT", R),
        ("SUPPRESSED", R),
        (rate_name, R),
    ]);
    for channel in &now.channels {
        let earlier = before.channels.iter().find(|other| other.relid == channel.relid);
        let rate = rates
            .per_second(channel.signals_sent, earlier.map_or(0, |channel| channel.signals_sent));
        let cells = [
            channel.relid.to_string(),
            channel.class.clone(),
            match channel.subchannel {
                0 => channel.instance.clone(),
                number => format!("{} #{number}", channel.instance),
            },
            channel.state.clone(),
            channel.target_vp.map_or("-".to_owned(), |vp| vp.to_string()),
            channel.signals_sent.to_string(),
            channel.signals_suppressed.to_string(),
        ];
        table.row(cells.into_iter().chain(rate.map(short)));
    }
    text.section("Channels (signals to the guest)", &table);
}

fn rings(text: &mut Text, now: &InspectReport) {
    let open: Vec<&ChannelReport> =
        now.channels.iter().filter(|channel| channel.rings.is_some()).collect();
    if open.is_empty() {
        return;
    }
    let mut table = Table::new(&[
        ("RELID", R),
        ("DIRECTION", L),
        ("OCCUPANCY", L),
        ("USED", R),
        ("SIZE", R),
        ("PENDING", R),
        ("INTERRUPTS", L),
    ]);
    for channel in open {
        let Some(rings) = &channel.rings else { continue };
        for (name, ring) in [("guest to host", &rings.incoming), ("host to guest", &rings.outgoing)]
        {
            table.row([
                channel.relid.to_string(),
                name.to_owned(),
                if ring.corrupt { "corrupt".to_owned() } else { bar(ring) },
                ring.used.to_string(),
                bytes(ring.size.into()),
                ring.pending_send_size.to_string(),
                if ring.masked { "masked" } else { "wanted" }.to_owned(),
            ]);
        }
    }
    text.section("Rings", &table);
}

fn workers(text: &mut Text, now: &InspectReport) {
    let mut table = Table::new(&[
        ("RELID", R),
        ("TAKEN", R),
        ("SENT", R),
        ("BATCHES", R),
        ("TAKEN/BATCH", R),
        ("SLEEPS", R),
        ("POLLED", R),
        ("DELAYED", R),
    ]);
    let mut any = false;
    for channel in &now.channels {
        let Some(worker) = channel.worker else { continue };
        any = true;
        let each = worker.taken as f64 / worker.batches.max(1) as f64;
        table.row([
            channel.relid.to_string(),
            worker.taken.to_string(),
            worker.sent.to_string(),
            worker.batches.to_string(),
            format!("{each:.1}"),
            worker.sleeps.to_string(),
            worker.polled.to_string(),
            worker.moderated.to_string(),
        ]);
    }
    if any {
        text.section(
            "Workers (packets, sleeps, polls that found work, delayed interrupts)",
            &table,
        );
    }
}

/// Returns `[###.......]`, with at least one `#` if the ring contains a byte.
fn bar(ring: &RingReport) -> String {
    let (used, size) = (u64::from(ring.used), u64::from(ring.size));
    let filled = if size == 0 { 0 } else { (used * BAR as u64).div_ceil(size).min(BAR as u64) };
    let filled = usize::try_from(filled).unwrap_or(BAR);
    format!("[{}{}]", "#".repeat(filled), ".".repeat(BAR - filled))
}

fn gpadls(text: &mut Text, now: &InspectReport) {
    let mut table = Table::new(&[
        ("GPADL", R),
        ("RELID", R),
        ("RANGES", R),
        ("PAGES", R),
        ("BYTES", R),
        ("RUNS", R),
        ("MAPPING", L),
        ("VIEWS", R),
    ]);
    for gpadl in &now.gpadls {
        table.row([
            format!("{:#x}", gpadl.id),
            gpadl.relid.to_string(),
            gpadl.ranges.to_string(),
            gpadl.pages.to_string(),
            bytes(gpadl.bytes),
            gpadl.runs.to_string(),
            gpadl.mapping.clone(),
            gpadl.views.to_string(),
        ]);
    }
    text.section("GPADLs", &table);
}

/// Returns the image and its restrictions for the guest, or the state of a DVD drive.
fn image(disk: &super::DiskReport) -> String {
    let path = &disk.path;
    match disk.kind {
        _ if disk.removed => format!("{path} (removed, busy)"),
        UnitKind::Disk if disk.readonly => format!("{path} (read-only)"),
        UnitKind::Disk => path.clone(),
        UnitKind::Dvd if disk.has_medium && disk.locked => format!("{path} (DVD, locked)"),
        UnitKind::Dvd if disk.has_medium => format!("{path} (DVD)"),
        UnitKind::Dvd if disk.tray_open => "(DVD, tray open)".to_owned(),
        UnitKind::Dvd => "(DVD, empty)".to_owned(),
    }
}

fn disks(text: &mut Text, now: &InspectReport, before: &InspectReport, rates: &Rates) {
    let (requests_rate, bytes_rate) = if rates.known() { ("REQ/S", "BYTES/S") } else { ("", "") };
    let fixed = if now.disks.iter().any(|disk| disk.fixed_buffers) { "FIXED" } else { "" };
    let mut table = Table::new(&[
        ("DISK", L),
        ("REQUESTS", R),
        ("READS", R),
        ("WRITES", R),
        ("FLUSHES", R),
        ("BYTES", R),
        ("COPIED", R),
        (fixed, R),
        ("REFUSED", R),
        ("ERRORS", R),
        ("PENDING", R),
        (requests_rate, R),
        (bytes_rate, R),
        ("IMAGE", L),
    ]);
    for disk in &now.disks {
        let address = |other: &&super::DiskReport| {
            (other.controller, other.lun) == (disk.controller, disk.lun)
        };
        let earlier = before.disks.iter().find(address);
        let (requests, moved) =
            earlier.map_or((0, 0), |disk| (disk.stats.requests, disk.stats.bytes));
        table.row([
            disk.id.clone(),
            disk.stats.requests.to_string(),
            disk.stats.reads.to_string(),
            disk.stats.writes.to_string(),
            disk.stats.flushes.to_string(),
            bytes(disk.stats.bytes),
            bytes(disk.stats.copied_bytes),
            if disk.fixed_buffers { disk.fixed_calls.to_string() } else { String::new() },
            disk.stats.refused.to_string(),
            disk.stats.errors.to_string(),
            disk.stats.in_flight.to_string(),
            rates.per_second(disk.stats.requests, requests).map(short).unwrap_or_default(),
            rates.per_second(disk.stats.bytes, moved).map(bytes).unwrap_or_default(),
            image(disk),
        ]);
    }
    text.section("Disks", &table);
}

fn limits(text: &mut Text, now: &InspectReport) {
    let mut table = Table::new(&[("DISK", L), ("DELAYED", R), ("BYTES", R), ("WAITED", R)]);
    let limited = now.disks.iter().filter_map(|disk| Some((disk, disk.throttle?)));
    let mut any = false;
    for (disk, throttle) in limited {
        any = true;
        table.row([
            disk.id.clone(),
            throttle.delayed_requests.to_string(),
            bytes(throttle.delayed_bytes),
            format!("{:.3} s", Duration::from_micros(throttle.delayed_us).as_secs_f64()),
        ]);
    }
    if any {
        text.section("Delayed by limits", &table);
    }
}

fn networks(text: &mut Text, now: &InspectReport, before: &InspectReport, rates: &Rates) {
    if !now.networks.is_empty() {
        text.section("Network cards", &render_network::cards(now));
        let queues = render_network::queues(now, before, rates);
        text.section("Network queues (frames from the guest: TX, to it: RX; signals)", &queues);
    }
    if let Some(drops) = render_network::drops(now) {
        text.section("Dropped frames", &drops);
    }
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
