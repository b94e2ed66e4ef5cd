// Package ports reads the ports that an EXPOSE names.
package ports

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// Parse reads "[[ip:]host:]first[-last][/protocol]" and returns each
// port as "80/tcp". Address and host port are read as BuildKit does: checked
// and forgotten.
func Parse(word string) ([]string, error) {
	rest, port := "", word
	if i := strings.LastIndex(word, ":"); i >= 0 {
		rest, port = word[:i], word[i+1:]
	}
	port, protocol, _ := strings.Cut(port, "/")
	switch protocol = strings.ToLower(protocol); protocol {
	case "":
		protocol = "tcp"
	case "tcp", "udp", "sctp":
	default:
		return nil, fmt.Errorf("invalid port: %q: invalid protocol %s: use tcp, udp or sctp", word, protocol)
	}
	first, last, err := portRange(port)
	if err != nil {
		return nil, fmt.Errorf("invalid port: %q: %w", word, err)
	}
	if err := checkHostPart(rest, last-first); err != nil {
		return nil, fmt.Errorf("invalid port: %q: %w", word, err)
	}
	out := make([]string, 0, last-first+1)
	for p := first; p <= last; p++ {
		out = append(out, strconv.Itoa(p)+"/"+protocol)
	}
	return out, nil
}

// checkHostPart checks "[ip:]host" against the size of the range of ports.
func checkHostPart(part string, size int) error {
	ip, host := "", part
	if i := strings.LastIndex(part, ":"); i >= 0 {
		ip, host = part[:i], part[i+1:]
	}
	if ip != "" && net.ParseIP(strings.TrimSuffix(strings.TrimPrefix(ip, "["), "]")) == nil {
		return fmt.Errorf("invalid IP address: %s", ip)
	}
	if host == "" {
		return nil
	}
	first, last, err := portRange(host)
	if err != nil {
		return fmt.Errorf("host port: %w", err)
	}
	if size != 0 && last-first != size {
		return errors.New("the ranges of host and container ports differ in size")
	}
	return nil
}

func portRange(s string) (first, last int, err error) {
	low, high, ok := strings.Cut(s, "-")
	if first, err = portNumber(low); err != nil {
		return 0, 0, err
	}
	if !ok {
		return first, first, nil
	}
	if last, err = portNumber(high); err != nil {
		return 0, 0, err
	}
	if last < first {
		return 0, 0, fmt.Errorf("the range %s ends before it begins", s)
	}
	return first, last, nil
}

func portNumber(s string) (int, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 0 || n > 65535 {
		return 0, fmt.Errorf("%q is no number from 0 to 65535", s)
	}
	return int(n), nil
}
