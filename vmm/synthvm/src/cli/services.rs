//! The commands that ask the guest's integration services.

use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use synthvm_services::protocol::ip::IpInfo;
use synthvm_services::protocol::kvp::Pair;
use synthvm_services::protocol::shutdown::ShutdownMode;

use super::args::{IpVerb, KvpVerb, ShutdownArgs, StatusArgs, TimeSyncArgs};
use super::commands::{json, print};
use super::exit::{Exit, Failure};
use crate::control::{Client, Request};
use crate::inspect::{Align, Table, printable};
use crate::services::{GuestStatus, ServiceRequest};

pub(super) fn shutdown(args: &ShutdownArgs, mode: ShutdownMode) -> Result<Exit, Failure> {
    let mut client = Client::connect(&args.socket)?;
    let request = ServiceRequest::Shutdown { mode, force: args.force, reason: args.reason.clone() };
    client.request(&Request::Service { request: Box::new(request) })?;
    match args.wait.filter(|_| mode != ShutdownMode::Restart) {
        Some(seconds) if !client.wait_for_end(Duration::from_secs(seconds.into())) => {
            let message = format!(
                "{}: the guest has agreed, but has not ended after {seconds} seconds",
                args.socket.display()
            );
            Err(Failure::text(Exit::Guest, message))
        }
        _ => Ok(Exit::Success),
    }
}

pub(super) fn time_sync(args: &TimeSyncArgs) -> Result<Exit, Failure> {
    ask::<()>(&args.socket, ServiceRequest::TimeSync {})?;
    Ok(Exit::Success)
}

pub(super) fn status(args: &StatusArgs) -> Result<Exit, Failure> {
    let status: GuestStatus = ask(&args.socket, ServiceRequest::Status {})?;
    print(&if args.json { json(&status, true)? } else { render(&status) })?;
    Ok(Exit::Success)
}

pub(super) fn kvp(verb: KvpVerb) -> Result<Exit, Failure> {
    match verb {
        KvpVerb::Get { socket, key, pool, json: wants_json } => {
            let pool = pool.into();
            let request = ServiceRequest::KvpGet { pool, key: key.clone() };
            let value: Option<String> = ask(&socket, request)?;
            let Some(value) = value else {
                let message = format!("{}: the guest has no key `{key}`", socket.display());
                return Err(Failure::text(Exit::Guest, message));
            };
            print(&if wants_json { json(&value, true)? } else { printable(&value) + "\n" })?;
        }
        KvpVerb::Set { socket, key, value, pool } => {
            ask::<()>(&socket, ServiceRequest::KvpSet { pool: pool.into(), key, value })?;
        }
        KvpVerb::Delete { socket, key, pool } => {
            ask::<()>(&socket, ServiceRequest::KvpDelete { pool: pool.into(), key })?;
        }
        KvpVerb::List { socket, pool, json: wants_json } => {
            let pairs: Vec<Pair> = ask(&socket, ServiceRequest::KvpList { pool: pool.into() })?;
            print(&if wants_json { json(&pairs, true)? } else { lines(&pairs) })?;
        }
    }
    Ok(Exit::Success)
}

pub(super) fn ip(verb: IpVerb) -> Result<Exit, Failure> {
    match verb {
        IpVerb::Get { socket, card, json: wants_json } => {
            let info: IpInfo = ask(&socket, ServiceRequest::IpGet { card })?;
            print(&if wants_json { json(&info, true)? } else { ip_lines(&info) })?;
        }
        IpVerb::Set { socket, card, dhcp, addresses, subnets, gateways, dns } => {
            let text = |list: Vec<std::net::IpAddr>| list.iter().map(ToString::to_string).collect();
            if !dhcp && addresses.len() != subnets.len() {
                let message = "--subnet is needed once for each --address";
                return Err(Failure::text(Exit::Usage, message));
            }
            let (addresses, gateways, dns) = (text(addresses), text(gateways), text(dns));
            let ip = IpInfo { dhcp, addresses, subnets, gateways, dns };
            ask::<()>(&socket, ServiceRequest::IpSet { card, ip })?;
        }
    }
    Ok(Exit::Success)
}

fn lines(pairs: &[Pair]) -> String {
    let line = |pair: &Pair| format!("{}: {}\n", printable(&pair.key), printable(&pair.value));
    pairs.iter().map(line).collect()
}

fn ip_lines(info: &IpInfo) -> String {
    let dhcp = if info.dhcp { "yes" } else { "no" };
    let lists = [
        ("addresses", &info.addresses),
        ("subnets", &info.subnets),
        ("gateways", &info.gateways),
        ("dns", &info.dns),
    ];
    let lists = lists.map(|(name, list)| format!("{name}: {}\n", printable(&list.join(" "))));
    format!("dhcp: {dhcp}\n{}", lists.concat())
}

pub(super) fn ask<T: DeserializeOwned>(
    socket: &Path,
    request: ServiceRequest,
) -> Result<T, Failure> {
    let request = Request::Service { request: Box::new(request) };
    Ok(Client::connect(socket)?.ask(&request)?)
}

fn render(status: &GuestStatus) -> String {
    let mut table = Table::new(&[
        ("SERVICE", Align::Left),
        ("STATE", Align::Left),
        ("VERSION", Align::Left),
        ("REQUESTS", Align::Right),
        ("TIMEOUTS", Align::Right),
    ]);
    for service in &status.services {
        table.row([
            service.name.to_string(),
            service.state.text().to_owned(),
            service.version.clone().unwrap_or_default(),
            service.requests.to_string(),
            service.timeouts.to_string(),
        ]);
    }
    let frozen = if status.frozen { "File systems: frozen\n" } else { "" };
    let heartbeat = format!("Heartbeat: {}\n{frozen}", status.heartbeat.text());
    format!("{heartbeat}{}{}\n", lines(&status.facts), table.lines().join("\n"))
}
