//! Routes through a device: the kernel drops them when it moves, and does not make them again when it comes back. Pure.

use super::{NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, Request, attributes, u32_at};

/// linux/rtnetlink.h: `rtmsg` is family, lengths of destination and source, tos, table, protocol, scope, type, flags.
const RTMSG: usize = 12;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_CACHEINFO: u16 = 12;
const RTA_VIA: u16 = 18;
const RTA_NH_ID: u16 = 30;
const RTPROT_KERNEL: u8 = 2;
const RT_TABLE_LOCAL: u8 = 255;
const RTM_F_CLONED: u32 = 0x200;
/// `RTNH_F_PERVASIVE` and `RTNH_F_ONLINK`, what its maker has chosen. The other flags are the route's state.
const RTNH_F_CHOSEN: u32 = 0x2 | 0x4;

/// A route, as the kernel has told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in super::super) struct Route {
    header: [u8; RTMSG],
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Route {
    /// Whether it leaves by that device, and was made by somebody: the kernel's own come with addresses.
    pub(in super::super) fn is_made_for(&self, index: u32) -> bool {
        let [.., table, protocol, _, _, _, _, _, _] = self.header;
        let by = self.attributes.iter().find(|(kind, _)| *kind == RTA_OIF).and_then(|(_, bytes)| u32_at(bytes, 0));
        let cloned = u32_at(&self.header, 8).is_some_and(|flags| flags & RTM_F_CLONED != 0);
        by == Some(index) && protocol != RTPROT_KERNEL && table != RT_TABLE_LOCAL && !cloned
    }

    /// A gateway must be reachable by another route before.
    pub(in super::super) fn has_gateway(&self) -> bool {
        self.attributes.iter().any(|(kind, _)| matches!(*kind, RTA_GATEWAY | RTA_VIA))
    }
}

/// All routes of all devices and tables.
pub(in super::super) fn list() -> Request {
    Request::new(libc::RTM_GETROUTE, NLM_F_DUMP, &[0; RTMSG])
}

/// An answer about a route.
pub(in super::super) fn read(part: &[u8]) -> Option<Route> {
    let header = *part.first_chunk()?;
    // The object of a next hop is gone with the device; what it has said is in the route, too.
    let attributes = attributes(part.get(RTMSG..)?).filter(|(kind, _)| !matches!(*kind, RTA_CACHEINFO | RTA_NH_ID));
    Some(Route { header, attributes: attributes.map(|(kind, payload)| (kind, payload.to_vec())).collect() })
}

/// Makes a route again, by the device of that index.
pub(in super::super) fn add(route: &Route, index: u32) -> Request {
    let mut header = route.header;
    let flags = u32_at(&header, 8).unwrap_or(0) & RTNH_F_CHOSEN;
    header.iter_mut().skip(8).zip(flags.to_ne_bytes()).for_each(|(slot, byte)| *slot = byte);
    let request = Request::new(libc::RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL, &header);
    route.attributes.iter().fold(request, |request, (kind, payload)| match *kind {
        RTA_OIF => request.attribute(RTA_OIF, &index.to_ne_bytes()),
        kind => request.attribute(kind, payload),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(header: [u8; RTMSG], attributes: &[(u16, &[u8])]) -> Route {
        let request = Request::new(libc::RTM_NEWROUTE, 0, &header);
        let request = attributes.iter().fold(request, |request, (kind, payload)| request.attribute(*kind, payload));
        read(&request.0[super::super::NLMSG_HEADER..]).unwrap()
    }

    const STATIC: [u8; RTMSG] = [2, 16, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];

    #[test]
    fn those_that_somebody_made_for_the_device() {
        let is_made = |header, oif: u8| route(header, &[(RTA_OIF, &[oif, 0, 0, 0])]).is_made_for(7);
        assert!(is_made(STATIC, 7) && !is_made(STATIC, 8) && !route(STATIC, &[]).is_made_for(7));
        assert!(!is_made([2, 16, 0, 0, 254, 2, 0, 1, 0, 0, 0, 0], 7), "the kernel's own");
        assert!(!is_made([2, 32, 0, 0, 255, 3, 0, 2, 0, 0, 0, 0], 7), "of the table local");
        assert!(!is_made([10, 128, 0, 0, 254, 3, 0, 1, 0, 2, 0, 0], 7), "a clone");
    }

    #[test]
    fn a_route_is_made_again_without_its_state() {
        let header = [2, 16, 0, 0, 254, 3, 0, 1, 0x15, 0, 0, 0];
        let given: [(u16, &[u8]); 4] =
            [(1, &[10, 90, 0, 0]), (RTA_OIF, &[7, 0, 0, 0]), (RTA_CACHEINFO, &[0; 32]), (30, &[1; 4])];
        let bytes = add(&route(header, &given), 9).numbered(1);
        let mut expected = vec![2, 16, 0, 0, 254, 3, 0, 1, 4, 0, 0, 0];
        expected.extend([8, 0, 1, 0, 10, 90, 0, 0, 8, 0, 4, 0, 9, 0, 0, 0]);
        assert_eq!(bytes[16..], expected);
        assert!(!route(header, &given).has_gateway() && route(header, &[(RTA_GATEWAY, &[1; 4])]).has_gateway());
    }
}
