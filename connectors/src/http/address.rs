//! Which addresses a request may reach: without `allow_private_networks`, public unicast only.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// An address that a request may not reach.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{host} is at {address}, which is {kind}")]
pub(super) struct Forbidden {
    /// The name or address that was asked for.
    pub host: String,
    pub address: IpAddr,
    pub kind: &'static str,
}

/// Turns a host's name into addresses.
pub(crate) trait Lookup: Send + Sync + fmt::Debug {
    fn lookup(&self, host: &str) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>>;
}

/// The operating system's resolver.
#[derive(Debug)]
pub(crate) struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, host: &str) -> BoxFuture<'static, std::io::Result<Vec<IpAddr>>> {
        let host = host.to_owned();
        async move { Ok(tokio::net::lookup_host((host, 0)).await?.map(|a| a.ip()).collect()) }.boxed()
    }
}

/// Resolves a name and hands out its addresses only when every one of them may be reached. The
/// connection is made to exactly these, so a name that changes its mind between check and
/// connection gains nothing.
#[derive(Debug)]
pub(super) struct GuardedResolver {
    pub lookup: Arc<dyn Lookup>,
    pub allow_private_networks: bool,
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let host = name.as_str().to_owned();
        let found = self.lookup.lookup(&host);
        let allow = self.allow_private_networks;
        Box::pin(async move {
            let addresses = found.await?;
            if !allow {
                for address in &addresses {
                    check(&host, *address)?;
                }
            }
            let addresses: Addrs = Box::new(addresses.into_iter().map(|ip| SocketAddr::new(ip, 0)));
            Ok(addresses)
        })
    }
}

pub(super) fn check(host: &str, address: IpAddr) -> Result<(), Forbidden> {
    match not_public(address) {
        None => Ok(()),
        Some(kind) => Err(Forbidden { host: host.to_owned(), address, kind }),
    }
}

/// What kind of address it is, unless it is public unicast.
fn not_public(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(v4) => not_public_v4(v4),
        IpAddr::V6(v6) => not_public_v6(v6),
    }
}

/// The special-purpose registry of IPv4 (RFC 6890 and its updates).
fn not_public_v4(ip: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = ip.octets();
    Some(match (a, b, c) {
        (0, ..) => "an unspecified address",
        (127, ..) => "a loopback address",
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => "a private address",
        (100, 64..=127, _) => "a shared (carrier-grade NAT) address",
        (169, 254, _) => "a link-local address (cloud metadata lives there)",
        (192, 0, 0) => "a protocol assignment",
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => "a documentation address",
        (192, 31, 196) | (192, 52, 193) | (192, 175, 48) | (192, 88, 99) => "a special-purpose address",
        (198, 18..=19, _) => "a benchmarking address",
        (224..=239, ..) => "a multicast address",
        (240.., ..) => "a reserved or broadcast address",
        _ => return None,
    })
}

/// Only `2000::/3` is public unicast; inside it and beside it, addresses that carry an IPv4
/// address are judged by that one.
fn not_public_v6(ip: Ipv6Addr) -> Option<&'static str> {
    let s = ip.segments();
    let embedded = |high: u16, low: u16| Ipv4Addr::from((u32::from(high) << 16) | u32::from(low));
    match s {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("an unspecified address"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("a loopback address"),
        // Mapped, and the deprecated compatible form.
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] => not_public_v4(embedded(high, low)),
        // Translated (SIIT) and NAT64.
        [0, 0, 0, 0, 0xffff, 0, high, low] => not_public_v4(embedded(high, low)),
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => not_public_v4(embedded(high, low)),
        [0x64, 0xff9b, ..] => Some("a local NAT64 address"),
        [0x2002, high, low, ..] => not_public_v4(embedded(high, low)),
        [0x2001, 0, ..] => Some("a Teredo address"),
        [0x2001, 0xdb8, ..] | [0x3fff, 0..=0x0fff, ..] => Some("a documentation address"),
        [0x2001, 0..=0x01ff, ..] => Some("a protocol assignment"),
        [0xfc00..=0xfdff, ..] => Some("a private (unique local) address"),
        [0xfe80..=0xfebf, ..] => Some("a link-local address"),
        [0xfec0..=0xfeff, ..] => Some("a site-local address"),
        [0xff00..=0xffff, ..] => Some("a multicast address"),
        // ISATAP carries an IPv4 address behind any prefix.
        [.., 0x0000 | 0x0200, 0x5efe, high, low] => not_public_v4(embedded(high, low)),
        [0x2000..=0x3fff, ..] => None,
        _ => Some("a reserved address"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_unicast_may_be_reached() {
        let forbidden = [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.255.254",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "100.64.0.1",
            "100.127.255.255",
            "169.254.169.254",
            "169.254.0.1",
            "192.0.0.192",
            "192.0.2.1",
            "198.51.100.7",
            "203.0.113.9",
            "198.18.0.1",
            "198.19.255.255",
            "192.88.99.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.2.3",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::169.254.169.254",
            "64:ff9b:1::1",
            "::ffff:0:192.168.0.1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "2001:2::1",
            "fc00::1",
            "fd12:3456::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "2606:4700::5efe:a00:1",
            "100::1",
            "4000::1",
            "5f00::1",
        ];
        for text in forbidden {
            let error = check("host.test", text.parse().unwrap()).expect_err(text);
            assert!(error.to_string().starts_with("host.test is at "), "{error}");
        }
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.1",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.167.0.1",
            "169.253.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2002:808:808::1",
            "2001:4860::8888",
        ];
        for text in public {
            assert_eq!(check("host.test", text.parse().unwrap()), Ok(()), "{text}");
        }
    }
}
