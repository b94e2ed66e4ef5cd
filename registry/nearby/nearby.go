// Package nearby knows the addresses that code which isn't trusted must not reach by
// way of this machine: the machine's own, its links', and the addresses at which clouds
// tell a machine its credentials. It is the one list for everything that
// keeps such code from them.
//
// Private addresses (RFC 1918, RFC 4193) of other machines are not on the list.
package nearby

import (
	"fmt"
	"net"
	"net/netip"
)

// services are where clouds tell a machine its credentials.
var services = [...]string{
	"169.254.0.0/16", "fe80::a9fe:a9fe/128", // nearly all of them
	"fd00:ec2::/64",      // AWS
	"fd20:ce::254/128",   // Google
	"100.100.100.200/32", // Alibaba
	"168.63.129.16/32",   // Azure
	"192.0.0.192/32",     // Oracle
}

// Prefixes returns the metadata services of clouds and the addresses that this
// process's network namespace has now, other than those that are loopback addresses
// everywhere.
func Prefixes() ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, s := range services {
		all = append(all, netip.MustParsePrefix(s))
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range interfaces {
		addrs, err := i.Addrs()
		if err != nil {
			return nil, err
		}
		for _, a := range addrs {
			network, ok := a.(*net.IPNet)
			if !ok || network.IP.IsLoopback() {
				continue
			}
			addr, _ := netip.AddrFromSlice(network.IP)
			addr = addr.Unmap()
			bits := addr.BitLen()
			if ones, size := network.Mask.Size(); i.Flags&net.FlagLoopback != 0 && size == bits {
				bits = ones // the kernel takes all of a loopback interface's networks for itself
			}
			all = append(all, netip.PrefixFrom(addr, bits).Masked())
		}
	}
	return all, nil
}

// Check returns an error, which says why, if addr is nearby: loopback, link-local,
// multicast, broadcast or no address of a host at all, one of [Prefixes], or an IPv6
// address that stands for such an IPv4 address.
func Check(addr netip.Addr) error {
	prefixes, err := Prefixes()
	if err != nil {
		return fmt.Errorf("the addresses of this machine can't be found out: %w", err)
	}
	for _, a := range append(embedded(addr), addr) {
		if what := kind(a.Unmap().WithZone(""), prefixes); what != "" {
			return fmt.Errorf("%s is %s", addr, what)
		}
	}
	return nil
}

// kind says what makes addr nearby, "" if it isn't.
func kind(addr netip.Addr, prefixes []netip.Prefix) string {
	switch {
	case addr.IsLoopback():
		return "an address of this machine"
	case thisNetwork.Contains(addr), addr.IsUnspecified(), addr.IsMulticast(), addr == broadcast:
		return "no address of another machine"
	case addr.IsLinkLocalUnicast():
		return "an address of this machine's link"
	}
	for _, p := range prefixes {
		if p.Contains(addr) {
			return "an address of this machine, or of its cloud's metadata service"
		}
	}
	return ""
}

var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8") // RFC 1122 section 3.2.1.3
	broadcast   = netip.MustParseAddr("255.255.255.255")
)

// embeddings are the prefixes of IPv6 addresses that hold an IPv4 address, and the
// bytes in which they hold it.
var embeddings = [...]struct {
	prefix netip.Prefix
	bytes  [4]int
}{
	{netip.MustParsePrefix("::/96"), [4]int{12, 13, 14, 15}},           // IPv4-compatible (RFC 4291 section 2.5.5.1)
	{netip.MustParsePrefix("::ffff:0:0:0/96"), [4]int{12, 13, 14, 15}}, // IPv4-translated (RFC 2765 section 2.1)
	{netip.MustParsePrefix("64:ff9b::/96"), [4]int{12, 13, 14, 15}},    // NAT64 (RFC 6052 section 2.1)
	{netip.MustParsePrefix("64:ff9b:1::/48"), [4]int{6, 7, 9, 10}},     // NAT64 of a site (RFC 8215): RFC 6052 section 2.2 for a /48,
	{netip.MustParsePrefix("64:ff9b:1::/48"), [4]int{7, 9, 10, 11}},    // a /56,
	{netip.MustParsePrefix("64:ff9b:1::/48"), [4]int{9, 10, 11, 12}},   // a /64,
	{netip.MustParsePrefix("64:ff9b:1::/48"), [4]int{12, 13, 14, 15}},  // and a /96
	{netip.MustParsePrefix("2002::/16"), [4]int{2, 3, 4, 5}},           // 6to4 (RFC 3056 section 2)
	{teredo, [4]int{4, 5, 6, 7}},                                       // Teredo's server (RFC 4380 section 4)
}

// embedded returns the IPv4 addresses that the IPv6 address addr may stand for. Those
// in 0.0.0.0/8 stand for no host.
func embedded(addr netip.Addr) []netip.Addr {
	if !addr.Is6() || addr.Is4In6() {
		return nil
	}
	var found []netip.Addr
	note := func(four [4]byte) {
		if a := netip.AddrFrom4(four); !thisNetwork.Contains(a) {
			found = append(found, a)
		}
	}
	b := addr.As16()
	for _, e := range embeddings {
		if e.prefix.Contains(addr.WithZone("")) {
			note([4]byte{b[e.bytes[0]], b[e.bytes[1]], b[e.bytes[2]], b[e.bytes[3]]})
		}
	}
	if teredo.Contains(addr) {
		note([4]byte{^b[12], ^b[13], ^b[14], ^b[15]}) // the client, whose bits are turned
	}
	if b[8]&^2 == 0 && b[9] == 0 && b[10] == 0x5e && b[11] == 0xfe { // ISATAP (RFC 5214 section 6.1)
		note([4]byte(b[12:]))
	}
	return found
}

var teredo = netip.MustParsePrefix("2001::/32")
