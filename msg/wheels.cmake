# What a build against the PyPI wheels needs, included after every find_package. With an apt ROS it changes nothing.

# Their message packages export include directories of the machine that built them, and CMake refuses a target whose
# directory does not exist.
get_directory_property(imported_targets IMPORTED_TARGETS)
foreach(target IN LISTS imported_targets)
  get_target_property(directories ${target} INTERFACE_INCLUDE_DIRECTORIES)
  if(directories)
    set(existing "")
    foreach(directory IN LISTS directories)
      if(NOT IS_ABSOLUTE "${directory}" OR EXISTS "${directory}")
        list(APPEND existing "${directory}")
      endif()
    endforeach()
    set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${existing}")
  endif()
endforeach()

# Python nodes read the C type support alone: without the C++ half a build takes less than half the time.
option(PIRL_PYTHON_ONLY "leave out C++ headers and C++ type support" OFF)
if(PIRL_PYTHON_ONLY)
  list(FILTER AMENT_EXTENSIONS_rosidl_generate_idl_interfaces EXCLUDE REGEX "_cpp:")
endif()
