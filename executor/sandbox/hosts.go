package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// resolvConf is where the host keeps the resolver's configuration.
const resolvConf = "/etc/resolv.conf"

// writeHostFiles writes the files of /etc that describe the host and its
// network into dir, and returns the mounts that put them into the container.
// server, unless it is "", is the name server in place of the machine's.
// They are read-only there, as BuildKit's are: a command that could write them
// would expect to find its change in the image.
func writeHostFiles(dir, hostname string, extraHosts []string, server string) ([]Mount, error) {
	resolver, err := os.ReadFile(resolvConf)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read resolver configuration: %w", err)
	}
	if server != "" {
		resolver = withResolver(resolver, server)
	}
	hosts, err := hostsFile(hostname, extraHosts)
	if err != nil {
		return nil, err
	}
	files := []struct {
		name    string
		content []byte
	}{
		{"resolv.conf", resolver},
		{"hosts", hosts},
		{"hostname", []byte(hostname + "\n")},
	}
	mounts := make([]Mount, 0, len(files))
	for _, f := range files {
		path := filepath.Join(dir, f.name)
		if err := os.WriteFile(path, f.content, 0o644); err != nil { //nolint:gosec // every user of the container reads it
			return nil, fmt.Errorf("write %s for the container: %w", f.name, err)
		}
		if err := os.Chmod(path, 0o644); err != nil { //nolint:gosec // whatever the umask
			return nil, fmt.Errorf("write %s for the container: %w", f.name, err)
		}
		mounts = append(mounts, Mount{Source: path, Target: "/etc/" + f.name, ReadOnly: true})
	}
	return mounts, nil
}

// withResolver returns the configuration with one name server in place of its own
// (resolv.conf(5)).
func withResolver(conf []byte, server string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "nameserver %s\n", server)
	for line := range strings.Lines(string(conf)) {
		if fields := strings.Fields(line); len(fields) > 0 && fields[0] != "nameserver" {
			b.WriteString(strings.TrimSuffix(line, "\n") + "\n")
		}
	}
	return []byte(b.String())
}

// hostsFile returns the content of /etc/hosts (hosts(5)).
func hostsFile(hostname string, extraHosts []string) ([]byte, error) {
	var b strings.Builder
	fmt.Fprintf(&b, "127.0.0.1\tlocalhost %s\n", hostname)
	fmt.Fprintf(&b, "::1\tlocalhost ip6-localhost ip6-loopback %s\n", hostname)
	for _, extra := range extraHosts {
		name, address, found := strings.Cut(extra, ":")
		if !found || name == "" || strings.ContainsAny(name, " \t\r\n#") {
			return nil, fmt.Errorf("extra host %q: want name:address", extra)
		}
		ip, err := netip.ParseAddr(strings.Trim(address, "[]"))
		if err != nil {
			return nil, fmt.Errorf("extra host %q: %w", extra, err)
		}
		fmt.Fprintf(&b, "%s\t%s\n", ip, name)
	}
	return []byte(b.String()), nil
}
