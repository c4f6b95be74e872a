//! From where somebody asks.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use actix_web::{HttpRequest, http::header::HeaderMap};

const FORWARDED_FOR: &str = "X-Forwarded-For";

/// The address that asks: the peer's, or what the operator's own proxies say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ClientAddress(IpAddr);

impl ClientAddress {
    /// The address behind `n_trusted_proxies` proxies: each appends the one that asked it to
    /// `X-Forwarded-For`, so what stands further left was written by strangers. Where the header is
    /// shorter than that, the request did not come through all of them, and its peer is who asks.
    pub(super) fn of(request: &HttpRequest, n_trusted_proxies: usize) -> Self {
        let peer = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |at| at.ip());
        let forwarded = match n_trusted_proxies {
            0 => None,
            n => forwarded_for(request.headers(), n),
        };
        Self(forwarded.unwrap_or(peer).to_canonical())
    }

    /// What a limit counts: the address, or the /64 of an IPv6 one, which is the least that a customer of a
    /// provider gets.
    pub(super) const fn network(self) -> IpAddr {
        match self.0 {
            IpAddr::V4(address) => IpAddr::V4(address),
            IpAddr::V6(address) => {
                IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)))
            }
        }
    }
}

impl fmt::Display for ClientAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The n-th address from the right, over all lines of the header.
fn forwarded_for(headers: &HeaderMap, n: usize) -> Option<IpAddr> {
    let lines: Vec<&str> =
        headers.get_all(FORWARDED_FOR).map(|line| line.to_str().unwrap_or_default()).collect();
    let from_right = lines.iter().rev().flat_map(|line| line.rsplit(','));
    parse(from_right.into_iter().nth(n.checked_sub(1)?)?.trim())
}

/// An address, which some proxies write with a port.
fn parse(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().map(|at| at.ip());
    bare.parse().or_else(|_| with_port()).ok()
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::ClientAddress;

    fn asked(lines: &[&str], n_trusted_proxies: usize) -> ClientAddress {
        let mut request = TestRequest::default().peer_addr("192.0.2.1:5".parse().unwrap());
        for line in lines {
            request = request.append_header(("X-Forwarded-For", *line));
        }
        ClientAddress::of(&request.to_http_request(), n_trusted_proxies)
    }

    #[test]
    fn only_what_trusted_proxies_wrote_is_believed() {
        for (lines, n, expected) in [
            (&[][..], 0, "192.0.2.1"),
            (&[], 1, "192.0.2.1"),
            (&["198.51.100.1"], 0, "192.0.2.1"),
            (&["198.51.100.1"], 1, "198.51.100.1"),
            (&["203.0.113.9, 198.51.100.1"], 1, "198.51.100.1"),
            (&["203.0.113.9, 198.51.100.1"], 2, "203.0.113.9"),
            (&["203.0.113.9", "198.51.100.1"], 1, "198.51.100.1"),
            (&["203.0.113.9", "198.51.100.1"], 2, "203.0.113.9"),
            (&["203.0.113.9, 198.51.100.1"], 3, "192.0.2.1"),
            (&["nonsense"], 1, "192.0.2.1"),
            (&["198.51.100.1:443"], 1, "198.51.100.1"),
            (&["[2001:db8::1]:443"], 1, "2001:db8::1"),
            (&["[2001:db8::1]"], 1, "2001:db8::1"),
            (&["::ffff:198.51.100.1"], 1, "198.51.100.1"),
        ] {
            assert_eq!(asked(lines, n).to_string(), expected, "{lines:?} behind {n}");
        }
    }

    #[test]
    fn a_limit_counts_the_network_of_an_ipv6_address() {
        let network = |text: &str| asked(&[text], 1).network();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), network("2001:db8:1:2::"));
        assert_ne!(network("2001:db8:1:2::"), network("2001:db8:1:3::"));
        assert_ne!(network("198.51.100.1"), network("198.51.100.2"));
    }
}
