//go:build smallinit

package entry

import _ "embed"

// program is the small program. The build puts it here, see the Makefile.
//
//go:embed program
var program []byte
