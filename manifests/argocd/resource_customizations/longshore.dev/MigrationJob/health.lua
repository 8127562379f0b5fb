-- An ended job stays as it ended, whatever is changed of it afterwards. One that was cancelled did what was wished.
local hs = { status = "Progressing", message = "Waiting for the Longshore operator" }

if obj.status == nil or obj.status.conditions == nil then
  return hs
end

local found = {}
for _, condition in ipairs(obj.status.conditions) do
  if condition.status == "True" then
    found[condition.type] = condition
  elseif condition.type == "Complete" then
    hs.message = condition.message
  end
end
if found.Complete ~= nil then
  return { status = "Healthy", message = found.Complete.message }
end
if found.Failed ~= nil then
  local status = found.Failed.reason == "Cancelled" and "Healthy" or "Degraded"
  return { status = status, message = found.Failed.message }
end
local seen = obj.status.observedGeneration
if seen == nil or (obj.metadata.generation ~= nil and seen < obj.metadata.generation) then
  hs.message = "Waiting for the Longshore operator to see the change"
  return hs
end
if found.Undecided ~= nil then
  return { status = "Degraded", message = found.Undecided.message }
end
if found.Suspended ~= nil then
  return { status = "Suspended", message = found.Suspended.message }
end
return hs
