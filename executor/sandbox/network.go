package sandbox

import (
	"github.com/opencontainers/runc/libcontainer/configs"

	"github.com/bobbuild/bob/executor/sandbox/private"
)

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

// apply gives the container of config the network; own is that of a Private one.
func (n Network) apply(config *configs.Config, own *private.Network) {
	switch n {
	case None:
		config.Namespaces = append(config.Namespaces, configs.Namespace{Type: configs.NEWNET})
		config.Networks = []*configs.Network{{Type: "loopback"}}
	case Private:
		config.Namespaces = append(config.Namespaces, configs.Namespace{Type: configs.NEWNET, Path: own.Path})
	case Host:
	}
}
