package executor

// What the tests look at from inside.
var (
	CompleteHistory = completeHistory
	ClampHistory    = clampHistory
	LastCreated     = lastCreated
	LayerDescriptor = layerDescriptor
	LookupUser      = lookupUser
	LookupOwner     = lookupOwner
	OCIMediaType    = ociMediaType
)

// KeyOf is the key of some values of a kind.
func KeyOf(kind string, values ...string) string {
	k := newKey(kind)
	for _, v := range values {
		k = k.str(v)
	}
	return k.sum().String()
}

// KeyOfLists is the key of some lists.
func KeyOfLists(lists ...[]string) string {
	k := newKey("lists")
	for _, l := range lists {
		k = k.list(l)
	}
	return k.sum().String()
}
