//go:build !smallinit

package entry

// program is empty: this binary was built without the small program.
var program []byte
