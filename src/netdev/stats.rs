//! What the network devices of a namespace have carried. Pure.

use serde::Serialize;

/// One device, with the keys of runc's types/events.go.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Interface {
    name: String,
    rx_bytes: u64,
    rx_packets: u64,
    rx_errors: u64,
    rx_dropped: u64,
    tx_bytes: u64,
    tx_packets: u64,
    tx_errors: u64,
    tx_dropped: u64,
}

/// The lines of /proc/net/dev (proc_pid_net(5)), without the loopback device.
pub(crate) fn interfaces(text: &str) -> Vec<Interface> {
    let interface = |line: &str| {
        let (name, numbers) = line.split_once(':')?;
        let numbers: Vec<u64> = numbers.split_whitespace().map_while(|word| word.parse().ok()).collect();
        let [rx_bytes, rx_packets, rx_errors, rx_dropped, _, _, _, _, tx_bytes, tx_packets, tx_errors, tx_dropped, ..] =
            *numbers.as_slice()
        else {
            return None;
        };
        let name = name.trim().to_owned();
        Some(Interface {
            name,
            rx_bytes,
            rx_packets,
            rx_errors,
            rx_dropped,
            tx_bytes,
            tx_packets,
            tx_errors,
            tx_dropped,
        })
    };
    text.lines().filter_map(interface).filter(|interface| interface.name != "lo").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_but_loopback_has_its_numbers() {
        let text = "Inter-|   Receive                                                |  Transmit\n \
             face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo\n    \
             lo:     840      10    0    0    0     0          0         0      840      10    0    0    0     0 0 0\n  \
             eth0: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n";
        let eth0 = Interface {
            name: "eth0".to_owned(),
            rx_bytes: 1,
            rx_packets: 2,
            rx_errors: 3,
            rx_dropped: 4,
            tx_bytes: 9,
            tx_packets: 10,
            tx_errors: 11,
            tx_dropped: 12,
        };
        assert_eq!(interfaces(text), [eth0]);
    }
}
