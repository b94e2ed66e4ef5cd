// Command initprogram is the first process of a container, once its namespaces are made. It
// is embedded in bob, see package entry.
package main

import "github.com/bobbuild/bob/executor/sandbox/internal/entry"

func main() { entry.Become() }
