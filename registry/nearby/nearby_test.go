package nearby_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/bobbuild/bob/registry/nearby"
)

func TestCheck(t *testing.T) {
	t.Parallel()
	for address, refused := range map[string]bool{
		// This machine and its links.
		"127.0.0.1": true, "127.255.255.254": true, "::1": true, "0.0.0.0": true, "0.1.2.3": true, "::": true,
		"169.254.0.1": true, "fe80::1": true, "fe80::1%eth0": true, "224.0.0.1": true, "ff02::1": true, "255.255.255.255": true,
		// Metadata services.
		"169.254.169.254": true, "fd00:ec2::254": true, "fd00:ec2::23": true, "fd20:ce::254": true,
		"100.100.100.200": true, "168.63.129.16": true, "192.0.0.192": true,
		// IPv6 addresses that stand for them.
		"::ffff:127.0.0.1": true, "::ffff:169.254.169.254": true, "::ffff:100.100.100.200": true, "::ffff:0:169.254.169.254": true, "::127.0.0.1": true,
		"64:ff9b::169.254.169.254": true, "64:ff9b::7f00:1": true, "64:ff9b:1::168.63.129.16": true,
		"64:ff9b:1:a9fe:a9:fe00::": true, "64:ff9b:1:a9:fe:a9fe::": true, "64:ff9b:1:0:a9:fea9:fe00:0": true,
		"2002:a9fe:a9fe::1": true, "2002:7f00:1::": true, "2001:0:a9fe:a9fe::": true, "2001:0:808:808::5601:5601": true,
		"2a00::5efe:169.254.169.254": true, "2a00::200:5efe:127.0.0.1": true,
		// Others.
		"8.8.8.8": false, "10.255.1.2": false, "192.168.255.3": false, "100.100.100.201": false, "168.63.129.17": false, "2a00:1450::1": false,
		"::ffff:8.8.8.8": false, "64:ff9b::8.8.8.8": false, "64:ff9b:1::8.8.8.8": false, "2002:808:808::1": false, "fd20:ce::253": false, "2001:db8::1": false,
	} {
		err := nearby.Check(netip.MustParseAddr(address))
		if (err != nil) != refused {
			t.Errorf("%s: %v, want refused %t", address, err, refused)
		}
	}
}

// TestOwn checks that whatever address this machine has is refused.
func TestOwn(t *testing.T) {
	t.Parallel()
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range addrs {
		prefix, err := netip.ParsePrefix(a.String())
		if err != nil {
			t.Fatal(err)
		}
		if nearby.Check(prefix.Addr()) == nil {
			t.Errorf("%s isn't refused", prefix)
		}
	}
}
