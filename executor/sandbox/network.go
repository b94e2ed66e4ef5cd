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
	// Private is a network namespace of its own whose packets a program outside
	// carries, as connections of the user who runs bob. See the package
	// documentation for what can't be reached.
	Private
)

// apply gives the container of config the network; private is what a Private one
// has.
func (n Network) apply(config *configs.Config, private *privateNetwork) {
	switch n {
	case None:
		config.Namespaces = append(config.Namespaces, configs.Namespace{Type: configs.NEWNET})
		config.Networks = []*configs.Network{{Type: "loopback"}}
	case Private:
		config.Namespaces = append(config.Namespaces, configs.Namespace{Type: configs.NEWNET, Path: private.path})
	case Host:
	}
}
