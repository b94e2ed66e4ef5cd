package host_test

import (
	"testing"

	"github.com/bobbuild/bob/registry/internal/host"
)

func TestLoopback(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"localhost": true, "localhost:5000": true, "127.0.0.1": true, "127.1.2.3:80": true, "::1": true, "[::1]": true, "[::1]:5000": true,
		"localhost.example.com": false, "127.0.0.1.example.com:5000": false, "10.0.0.1:5000": false, "[fe80::1]:5000": false,
		"example.com": false, "registry:5000": false, "0.0.0.0:5000": false, "": false,
	} {
		if got := host.Loopback(name); got != want {
			t.Errorf("%q: %t", name, got)
		}
	}
}
