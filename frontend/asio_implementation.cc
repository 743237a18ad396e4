// The one place where the non-template parts of Boost.Asio and Beast are compiled (see *_SEPARATE_COMPILATION in CMakeLists.txt).
#include <boost/asio/impl/src.hpp>
#include <boost/beast/src.hpp>
