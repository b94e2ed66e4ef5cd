package sandbox

import "github.com/opencontainers/runc/libcontainer/configs"

// Network is the network that a Process sees.
type Network int

// The networks of a Process.
const (
	// Host is the network of bob itself, the zero value.
	Host Network = iota
	// None is a network namespace of its own with only the loopback
	// interface, which is up.
	None
)

// apply gives the container of config the network.
func (n Network) apply(config *configs.Config) {
	if n != None {
		return
	}
	config.Namespaces = append(config.Namespaces, configs.Namespace{Type: configs.NEWNET})
	config.Networks = []*configs.Network{{Type: "loopback"}}
}
